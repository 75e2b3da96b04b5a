"""The figures of a simulated fleet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fleet.saturation import Costs, Demand, saturation
from benchmarks.fleet.tally import Tally

HOUR_S = 3600.0
REQUEST_TOKENS = (250, 1_000, 4_000, 16_000, 64_000)


def day(tally: Tally, from_hour: float, title: str, path: Path, bin_s: float = 900.0) -> None:
    """Latency, load and what was refused, over the hours of a run. from_hour: when it began."""
    figure, rows = _figure(title, 3)
    times = np.array([each.arrived for each in tally.answered])
    latencies = np.array([each.latency_s for each in tally.answered])
    bins = np.arange(0, times.max() + bin_s, bin_s)
    places = np.digitize(times, bins) - 1
    hours = from_hour + (bins + bin_s / 2) / HOUR_S
    filled = [place for place in range(len(bins)) if (places == place).any()]
    for share, label in ((0.5, "median"), (0.99, "99th percentile")):
        rows[0].plot(
            [hours[place] for place in filled],
            [np.quantile(latencies[places == place], share) for place in filled],
            label=label,
        )
    rows[0].set_ylabel("latency, s")
    rows[0].set_ylim(bottom=0)
    rows[1].plot(hours, np.bincount(places, minlength=len(bins)) / bin_s, label="answers a second")
    at = [from_hour + second / HOUR_S for second, *_ in tally.loads]
    rows[1].plot(at, [mean for _, mean, _, _ in tally.loads], linewidth=0.6, label="samples in an engine, mean")
    rows[1].plot(at, [most for _, _, most, _ in tally.loads], linewidth=0.4, alpha=0.6, label="samples, busiest engine")
    rows[1].set_ylim(bottom=0)
    for code in sorted(tally.codes):
        came = np.digitize([second for second, each in tally.refused if each == code], bins) - 1
        rows[2].step(hours, np.bincount(came, minlength=len(bins))[: len(bins)], where="mid", label=code)
    rows[2].set_ylabel("not answered, in 15 min")
    rows[2].set_xlabel("hour of the day")
    for axes in rows:
        for number, (second, what) in enumerate(tally.events):
            hour = from_hour + second / HOUR_S
            axes.axvline(hour, color="black", linestyle=":", linewidth=0.8)
            if axes is rows[0]:
                axes.annotate(what, (hour, 0.02 + 0.05 * number), xycoords=("data", "axes fraction"), fontsize=7)
    _save(figure, rows, path)


def limits(costs: Costs, before: Mapping[int, float], path: Path) -> None:
    """What choosing an engine costs by their number, and what a front-end answers by the tokens of a request.

    before: CPU seconds to choose, when every engine was looked at.
    """
    figure, (picks, answers) = _figure("Where a front-end is full", 2, sharex=False)
    for measured, label in ((before, "looking at all engines"), (costs.pick_s, "looking at 32")):
        if measured:
            picks.plot(list(measured), [each * 1000 for each in measured.values()], "o-", label=label)
    picks.set(xscale="log", yscale="log", xlabel="engines", ylabel="CPU to choose one, ms")
    for engines in (10, 10_000):
        rates = [saturation(costs, Demand(engines, 1.0, tokens)).front_end_requests_per_s for tokens in REQUEST_TOKENS]
        answers.plot(REQUEST_TOKENS, rates, "o-", label=f"{engines:,} engines")
    answers.set(xscale="log", yscale="log", xlabel="tokens of a request", ylabel="requests/s, one process")
    _save(figure, [picks, answers], path)


def _figure(title: str, rows: int, sharex: bool = True) -> tuple[Any, Sequence[Any]]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(8, 2.6 * rows), layout="constrained")
    figure.suptitle(title, fontsize=10)
    return figure, figure.subplots(rows, sharex=sharex)


def _save(figure: Any, rows: Sequence[Any], path: Path) -> None:
    from matplotlib import rc_context

    for axes in rows:
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):  # text stays text
        figure.savefig(path, metadata={"Date": None})
