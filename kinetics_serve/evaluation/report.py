"""What the trials of a task say: pass@k, maj@k, lengths and eFLOPs, with intervals."""

from dataclasses import asdict, dataclass
from typing import Any

from kinetics_serve.cost import HardwareProfile, Price
from kinetics_serve.planner.calibrate import fixed_point
from kinetics_serve.planner.calibration import FixedPoint
from kinetics_serve.runner.replays import Recording
from kinetics_serve.strategies.spec import powers_of_two
from kinetics_serve.strategies.state import Status
from kinetics_serve.traces.intervals import Interval, bootstrap
from kinetics_serve.traces.traces import Traces


@dataclass(frozen=True, slots=True)
class Report:
    """What a recording says of its model on its task."""

    task: str
    model: str
    questions: int
    trials: int
    at: tuple[FixedPoint, ...]
    """pass@k (`coverage`), maj@k (`majority`) and the eFLOPs of k samples, for k in powers of two."""
    tokens: Interval
    """Of a sample."""
    truncated: float
    """The share of samples that were cut off, by max_tokens or for repeating themselves."""
    intensity: float
    """FLOPs per byte."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def report(traces: Traces, hardware: HardwareProfile, repeats: int = 50) -> Report:
    """repeats: random draws of k trials behind maj@k and eFLOPs, for each question."""
    assert traces.metadata.architecture is not None
    price = Price.on(traces.metadata.architecture, hardware)
    recording = Recording.whole(traces, price)
    trials = [trial for question in traces.questions for trial in question.trials]
    return Report(
        traces.metadata.task,
        traces.metadata.model,
        len(traces.questions),
        traces.trials,
        tuple(fixed_point(recording, repeats, samples=k, cap=traces.longest) for k in powers_of_two(traces.trials)),
        bootstrap([[float(trial.tokens) for trial in question.trials] for question in traces.questions]),
        sum(trial.status is Status.TRUNCATED for trial in trials) / len(trials),
        price.intensity,
    )
