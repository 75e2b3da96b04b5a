"""The figures of the Kinetics paper on one's own traces: accuracy against eFLOPs, and the table behind them."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kinetics_serve.cost import KVPolicy
from kinetics_serve.planner.calibration import Calibration, FixedPoint, ServedPoint, pareto
from kinetics_serve.traces.intervals import Interval

FORMATS = ("png", "svg")
COLUMNS = (
    "kind",
    "model",
    "kv_budget",
    "strategy",
    "stop_confidence",
    "samples",
    "max_tokens",
    "eflops",
    "eflops_low",
    "eflops_high",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "on_frontier",
)

Series = dict[tuple[str, KVPolicy], list[FixedPoint]]


def draw(calibration: Calibration, folder: Path) -> list[Path]:
    """Writes every figure as PNG and SVG, and frontier.csv; returns the files. ImportError without matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [_write_table(calibration, folder / "frontier.csv")]
    longest = {arm: max(point.max_tokens for point in points) for arm, points in _series(calibration.fixed).items()}
    best_of_n = [point for point in calibration.fixed if point.max_tokens == longest[point.model, point.kv]]
    long_cot = [point for point in calibration.fixed if point.samples == 1]
    files += _scaling(calibration, best_of_n, folder / "best_of_n", "Best-of-N: pass@N at full length")
    files += _scaling(calibration, long_cot, folder / "long_cot", "Long-CoT: pass@1 by length cap")
    files += _scaling(calibration, calibration.fixed, folder / "samples_and_length", "Any N and length cap: pass@N")
    files += _served(calibration, folder / "frontier")
    files += _growth(calibration, folder / "law")
    return files


def _write_table(calibration: Calibration, path: Path) -> Path:
    fixed = {id(point) for _, _, point in pareto((p.eflops.mean, p.coverage.mean, p) for p in calibration.fixed)}
    served = {id(point) for _, _, point in served_frontier(calibration.served)}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for point in calibration.fixed:
            arm: tuple[object, ...] = (point.model, kv_label(point.kv), "", "", point.samples, point.max_tokens)
            on = int(id(point) in fixed)
            table.writerow(["pass@N", *arm, *_ends(point.eflops), *_ends(point.coverage), on])
            table.writerow(["majority@N", *arm, *_ends(point.eflops), *_ends(point.majority), 0])
        for way in calibration.served:
            stop = way.options.get("stop_confidence", "")
            arm = (way.arm.model, kv_label(way.arm.kv), way.strategy, stop, way.samples, way.arm.max_tokens)
            table.writerow(["served", *arm, *_ends(way.spent), *_ends(way.accuracy), int(id(way) in served)])
    return path


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


def served_frontier(points: Iterable[ServedPoint]) -> list[tuple[float, float, ServedPoint]]:
    """eFLOPs, accuracy and point of what is worth serving."""
    return pareto((point.spent.mean, point.accuracy.mean, point) for point in points)


def kv_label(kv: KVPolicy) -> str:
    return "dense" if kv.budget is None else str(kv.budget)


def _series(points: Iterable[FixedPoint]) -> Series:
    found: Series = {}
    for point in points:
        found.setdefault((point.model, point.kv), []).append(point)
    return found


def _scaling(calibration: Calibration, points: Sequence[FixedPoint], stem: Path, title: str) -> list[Path]:
    """One line for every model and KV budget, with intervals, and the frontiers of dense and of sparse attention."""
    figure, axes = _figure(title, calibration)
    for (model, kv), line in _series(points).items():
        line = sorted(line, key=lambda point: point.eflops.mean)
        style = "o-" if kv.budget is None else "s--"
        costs, means = [p.eflops.mean for p in line], [p.coverage.mean for p in line]
        single_line = len({p.max_tokens for p in line}) == 1 or len({p.samples for p in line}) == 1
        (drawn,) = axes.plot(
            costs, means, style if single_line else style[0], alpha=0.6, label=f"{model}, KV {kv_label(kv)}"
        )
        if single_line:
            lows, highs = [p.coverage.low for p in line], [p.coverage.high for p in line]
            axes.fill_between(costs, lows, highs, color=drawn.get_color(), alpha=0.12)
    for sparse, color in ((False, "tab:red"), (True, "tab:green")):
        kind = [(p.eflops.mean, p.coverage.mean, p) for p in points if (p.kv.budget is not None) == sparse]
        frontier = pareto(kind)
        if frontier:
            label = f"frontier, {'sparse' if sparse else 'dense'}"
            axes.step([x for x, _, _ in frontier], [y for _, y, _ in frontier], where="post", color=color, label=label)
    return _save(figure, axes, stem)


def _served(calibration: Calibration, stem: Path) -> list[Path]:
    figure, axes = _figure("Served strategies", calibration)
    strategies = sorted({point.strategy for point in calibration.served})
    for strategy in strategies:
        points = [point for point in calibration.served if point.strategy == strategy]
        axes.scatter([p.spent.mean for p in points], [p.accuracy.mean for p in points], s=14, alpha=0.6, label=strategy)
    frontier = served_frontier(calibration.served)
    costs = [x for x, _, _ in frontier]
    axes.step(costs, [y for _, y, _ in frontier], where="post", color="black", label="frontier")
    axes.fill_between(
        costs,
        [p.accuracy.low for _, _, p in frontier],
        [p.accuracy.high for _, _, p in frontier],
        step="post",
        color="black",
        alpha=0.1,
    )
    return _save(figure, axes, stem)


def _growth(calibration: Calibration, stem: Path) -> list[Path]:
    """N × length, and the KV budget, of the points on each frontier of coverage."""
    figure, axes = _figure("Growth along the frontier", calibration)
    axes.set_ylabel("tokens")
    axes.set_yscale("log", base=2)
    groups = sorted({(point.model, point.kv.budget is not None) for point in calibration.fixed})
    for model, sparse in groups:
        points = [p for p in calibration.fixed if p.model == model and (p.kv.budget is not None) == sparse]
        frontier = pareto((p.eflops.mean, p.coverage.mean, p) for p in points)
        costs = [cost for cost, _, _ in frontier]
        name = f"{model}, {'sparse' if sparse else 'dense'}"
        axes.plot(costs, [p.tokens for _, _, p in frontier], "o-", label=f"N × length, {name}")
        if sparse:
            axes.plot(costs, [p.kv.budget for _, _, p in frontier], "s--", label=f"KV budget, {name}")
    return _save(figure, axes, stem)


def _figure(title: str, calibration: Calibration) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{title} ({calibration.task}, {calibration.questions} questions)")
    axes.set_xscale("log")
    axes.set_xlabel(f"eFLOPs of a question, {calibration.hardware.name}")
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Any, axes: Any, stem: Path) -> list[Path]:
    from matplotlib import rc_context

    axes.legend(fontsize=7)
    files = [stem.with_suffix(f".{kind}") for kind in FORMATS]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": stem.name}):  # text stays text
        for file in files:
            figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else {})
    return files
