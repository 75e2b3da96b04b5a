"""Watches whether plans hold while they are served: in the metrics, and in the log when they no longer do."""

import logging
import time
from collections.abc import Callable

from kinetics_serve.observability.metrics import Metrics
from kinetics_serve.planner.drift import Drift, PlanRecord, Promise
from kinetics_serve.runner.run import Run

logger = logging.getLogger(__name__)

CHECK_EVERY = 10
"""Requests. A look at all recent ones takes about a millisecond."""

WARN_EVERY_S = 6 * 3600.0

FIGURES = {
    "spend": "requests spend {came} of the eFLOPs that their plans expect (calibrated: {expected})",
    "agreement": "{came} of a request's votes agree with its answer (calibrated: {expected})",
}


class PlanWatch:
    """Of the plans that the calibration of `task` decides."""

    def __init__(self, task: str, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._task = task
        self._metrics = metrics
        self._clock = clock
        self._record = PlanRecord()
        self._ended = 0
        self._warned_at = float("-inf")

    def ended(self, promise: Promise, run: Run) -> None:
        """Notes a request that went its whole way. Where its deadline came first or a sample failed, it says nothing of
        its plan."""
        if run.finish is None or run.finish.reason == "deadline" or run.failures:
            return
        agreement = run.agreement or 0.0
        self._record.add(promise, run.account.spent, agreement)
        expected_agreement = promise.agreement.mean if promise.agreement is not None else None
        self._metrics.planned(self._task, promise.eflops, run.account.spent, expected_agreement, agreement)
        self._ended += 1
        if self._ended % CHECK_EVERY == 0:
            self._look()

    def _look(self) -> None:
        drifts = {drift.figure: drift for drift in self._record.drifts()}
        for figure in FIGURES:
            self._metrics.plan_drifted.labels(task=self._task, figure=figure).set(figure in drifts)
        now = self._clock()
        if drifts and now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            logger.warning("%s", _warning(self._task, list(drifts.values())))


def _warning(task: str, drifts: list[Drift]) -> str:
    found = "; ".join([_said(drift) for drift in drifts])
    return (
        f"requests have drifted from the calibration of {task}: of the last {drifts[0].requests} that it planned, "
        f"{found}. Its accuracies may not hold any more. Where `kinetics-serve plan --calibration FILE --accuracy A "
        "--verify 50 --url URL` finds that the calibration's own questions come out as planned, clients ask other "
        "questions or ask otherwise; else the model or its engine has changed. Either way: record today's questions "
        "with `kinetics-serve eval`, calibrate on them, and start the server with the new file"
    )


def _said(drift: Drift) -> str:
    came, low, high = drift.came.mean, drift.expected.low, drift.expected.high
    return FIGURES[drift.figure].format(came=f"{came:.2f}", expected=f"{low:.2f} to {high:.2f}")
