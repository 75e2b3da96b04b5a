"""The report's plots, as SVG that stands in the page: text in its font, in the colour of its text."""

from collections.abc import Sequence
from typing import Any

from deploy.loadtest.sums import PERCENTILES, Part

TEXT = "#123456"
"""Stands for the page's own colour, which light and dark pages differ in."""

COLOURS = ("#1b9e9e", "#d9822b", "#9b59b6")
"""Told apart on white and on black."""


def draw(parts: Sequence[Part]) -> dict[str, str]:
    """SVG by title. ImportError without matplotlib."""
    times = [part.middle_s for part in parts]
    whole = [[part.seconds[at] if part.seconds else None for part in parts] for at in range(len(PERCENTILES))]
    text = [[part.text_s[at] if part.text_s else None for part in parts] for at in range(len(PERCENTILES))]
    named = [f"p{percentile}" for percentile in PERCENTILES]
    use = [None if part.budget_use is None else 100 * part.budget_use for part in parts]
    return {
        "Answers a second": _figure("answers", times, {"answers": [part.answers for part in parts]}),
        "eFLOPs a second": _figure("eflops", times, {"eFLOPs": [part.eflops for part in parts]}),
        "Seconds to the whole answer": _figure("seconds", times, dict(zip(named, whole, strict=True))),
        "Seconds to the first text": _figure("text", times, dict(zip(named, text, strict=True))),
        "Budget used, %": _figure("use", times, {"used": use}, top=100),
    }


def _figure(
    name: str, times: Sequence[float], lines: dict[str, Sequence[float | None]], top: float | None = None
) -> str:
    from io import StringIO

    from matplotlib import rc_context
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    # Text stays text; the salt names the parts of a picture, and a page holds several.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "text.color": TEXT, "axes.edgecolor": TEXT}):
        figure = Figure(figsize=(6, 2.8), layout="constrained")
        axes = figure.subplots()
        for (label, values), colour in zip(lines.items(), COLOURS, strict=False):
            axes.plot(
                times, [float("nan") if value is None else value for value in values], ".-", c=colour, label=label
            )
        _dress(axes, len(lines) > 1)
        axes.set_ylim(0, top)
        axes.set_xlim(0, times[0] + times[-1])  # the whole test, in every plot
        out = StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    svg = out.getvalue()
    return svg[svg.index("<svg") :].replace(TEXT, "currentColor")


def _dress(axes: Any, legend: bool) -> None:
    from matplotlib.ticker import EngFormatter

    axes.tick_params(colors=TEXT)
    if axes.get_ylim()[1] >= 1000:
        axes.yaxis.set_major_formatter(EngFormatter())  # 20 G, as in the tables
    axes.set_xlabel("seconds", color=TEXT)
    axes.grid(color=TEXT, alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, ncols=3, loc="upper left")
