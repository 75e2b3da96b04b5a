"""Draws the dashboards from what a Prometheus answers, where there is no Grafana: a picture of each, in FOLDER.

python deploy/grafana/draw.py http://127.0.0.1:9090 FOLDER [--minutes 60] [--price 1]
"""

import argparse
import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

BOARDS = Path(__file__).parent / "dashboards"
COLUMNS = 3
POINTS = 120
UNITS = {
    "percentunit": FuncFormatter(lambda value, _: f"{100 * value:.3g} %"),
    "currencyUSD": FuncFormatter(lambda value, _: f"${value:.3g}"),
    "s": EngFormatter("s"),
}

Json = dict[str, Any]
Lines = dict[str, tuple[list[datetime], list[float]]]
"""Times and values by legend."""


def filled(query: str, seconds: float, price: float) -> str:
    """With what Grafana puts in for its variables."""
    over = max(seconds / POINTS * 4, 10)
    for name, value in {"__rate_interval": f"{over:.0f}s", "__range": f"{seconds:.0f}s", "price": f"{price:g}"}.items():
        query = query.replace(f"${name}", value)
    return query


def legend(pattern: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), pattern)


def series(prometheus: str, panel: Json, seconds: float, price: float) -> Lines:
    """Of the last ``seconds``. Raises httpx.HTTPError."""
    end = time.time()
    found: Lines = {}
    for target in panel["targets"]:
        asked = {"query": filled(target["expr"], seconds, price), "start": end - seconds, "end": end}
        answer = httpx.get(f"{prometheus}/api/v1/query_range", params=asked | {"step": seconds / POINTS}, timeout=30)
        answer.raise_for_status()
        for each in answer.json()["data"]["result"]:
            known = [(at, float(value)) for at, value in each["values"] if value != "NaN"]
            times = [datetime.fromtimestamp(at, UTC) for at, _ in known]
            found[legend(target.get("legendFormat", ""), each["metric"])] = (times, [value for _, value in known])
    return found


def draw(axes: Axes, panel: Json, lines: Lines) -> None:
    axes.set_title(panel["title"], fontsize=10, loc="left")
    lines = {name: line for name, line in lines.items() if line[1]}
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    form = UNITS.get(defaults.get("unit", ""), EngFormatter())
    if not lines:
        axes.text(0.5, 0.5, "nothing yet", ha="center", va="center", color="grey")
    elif panel["type"] == "stat":
        axes.text(0.5, 0.5, "\n".join(f"{form(line[1][-1])}  {name}" for name, line in lines.items()), ha="center")
    elif panel["type"] == "bargauge":
        axes.set_axis_on()
        axes.barh(list(lines), [line[1][-1] for line in lines.values()], height=0.4)
        axes.margins(y=0.5)
        axes.xaxis.set_major_formatter(form)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    else:
        axes.set_axis_on()
        stacked = "stacking" in defaults.get("custom", {})
        for name, (times, values) in lines.items():
            axes.plot(times, values, lw=1.2, label=name)
            if stacked:
                axes.fill_between(times, values, alpha=0.2)
        highest = max(max(values) for _, values in lines.values())
        axes.set_ylim(0, 1.3 * highest or 1)  # room for the legend
        axes.yaxis.set_major_formatter(form)
        axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.legend(fontsize=7, loc="upper left")
        axes.grid(alpha=0.3)
    axes.tick_params(labelsize=7)


def drawn(board: Json, prometheus: str, seconds: float, price: float) -> Figure:
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 2.6 * rows), layout="constrained")
    figure.suptitle(board["title"], fontsize=13)
    for axes in figure.subplots(rows, COLUMNS, squeeze=False).flat:
        axes.set_axis_off()
    for axes, panel in zip(figure.axes, panels, strict=False):
        draw(axes, panel, series(prometheus, panel, seconds, price))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prometheus", help="its address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--price", type=float, default=1.0, help="of 10¹⁸ eFLOPs")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(BOARDS.glob("*.json")):
        try:
            figure = drawn(json.loads(path.read_text()), arguments.prometheus, arguments.minutes * 60, arguments.price)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            sys.exit(f"no answer from a Prometheus at {arguments.prometheus}: {error}")
        figure.savefig(arguments.folder / f"{path.stem}.png", dpi=90)
        print(arguments.folder / f"{path.stem}.png")


if __name__ == "__main__":
    main()
