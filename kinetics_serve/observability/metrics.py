"""Every Prometheus metric of the front-end."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from kinetics_serve.observability.folder import collector, unchanging
from kinetics_serve.runner.run import Run

_RATIOS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]
_COUNTS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256]
_SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800]
_LABELS = ["model", "strategy"]

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client keeps each process's numbers, if there is such a folder when it is imported."""

Mode = Literal["livesum", "livemax", "livemin", "livemostrecent"]

PASS_THROUGH = "pass_through"
"""The strategy that a request without a budget is counted and booked under."""


class Metrics:
    """The metrics of one app, in a registry of its own.

    With several workers, prometheus_client keeps each one's numbers in a file (PROMETHEUS_MULTIPROC_DIR), and any of
    them shows the sums; of `kinetics_load_ratio` the highest, of `kinetics_upstream_up` the lowest,
    of `kinetics_tenant_quota_used_ratio` the latest.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a third more series, which nothing here reads
        self.registry = CollectorRegistry()
        self.eflops = self._counter("kinetics_eflops", "eFLOPs spent, by component", ["component"])
        self.saved = self._counter(
            "kinetics_eflops_saved", "eFLOPs that the same samples or votes would have cost more", ["reason"]
        )
        self.requests = self._counter("kinetics_requests", "Requests, by how they ended", ["outcome"])
        self.samples = self._counter("kinetics_samples", "Samples, by how they ended", ["outcome"])
        self.tokens = self._counter(
            "kinetics_tokens", "Tokens: prompt (once a request), cached_prompt, completion", ["kind"]
        )
        self.utilization = self._histogram(
            "kinetics_budget_utilization_ratio", "Spent over budget of a request", _RATIOS
        )
        self.confidence = self._histogram("kinetics_answer_confidence", "Confidence in the answer", _RATIOS)
        self.agreement = self._histogram(
            "kinetics_answer_agreement_ratio", "Share of the votes that say what the answer says", _RATIOS
        )
        self.samples_per_answer = self._histogram(
            "kinetics_samples_per_answer", "Samples that ended before a request had its answer", _COUNTS
        )
        self.duration = self._histogram(
            "kinetics_request_duration_seconds", "From a request's arrival to its end", _SECONDS
        )
        self.first_token = self._histogram(
            "kinetics_time_to_first_token_seconds",
            "From a request's arrival to any sample's first token",
            _SECONDS,
        )
        self.inflight = self._gauge("kinetics_inflight_samples", "Samples that generate now", "livesum", _LABELS)
        self.waiting = self._gauge("kinetics_queue_requests", "Requests that wait to run", "livesum")
        self.load = self._gauge("kinetics_load_ratio", "What runs, over what may run at once", "livemax")
        self.queue_wait = Histogram(
            "kinetics_queue_wait_seconds",
            "How long requests waited before they ran",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.refused = Counter(
            "kinetics_refused_requests",
            "Requests that the queue had no room for, or no turn in time",
            registry=self.registry,
        )
        self.server_errors = Counter(
            "kinetics_server_errors",
            "Requests that were answered with a 5xx status, whether anything ran or not",
            ["code"],
            registry=self.registry,
        )
        self.upstream_up = self._gauge("kinetics_upstream_up", "1 where an upstream answers", "livemin", ["upstream"])
        self.outbox_entries = self._gauge(
            "kinetics_outbox_bills", "Bills that wait in the outbox for the ledger's database", "livemax"
        )
        self.outbox_rejected = self._gauge(
            "kinetics_outbox_rejected_bills", "Bills in the outbox that the ledger's database can't book", "livemax"
        )
        self.outbox_oldest = self._gauge(
            "kinetics_outbox_oldest_seconds", "How long the oldest bill in the outbox has waited", "livemax"
        )
        self.late = Counter(
            "kinetics_late_settlements",
            "Requests whose bill was booked when their lease had expired",
            registry=self.registry,
        )
        self.late_eflops = Counter(
            "kinetics_late_settlement_eflops",
            "eFLOPs of requests whose lease had expired: by at most so much were quotas exceeded",
            registry=self.registry,
        )
        self.circuit_openings = Counter(
            "kinetics_upstream_circuit_openings",
            "How often an upstream that failed requests was given a rest",
            ["upstream"],
            registry=self.registry,
        )
        self._openings: dict[str, int] = {}
        self.tenant_quota = self._gauge(
            "kinetics_tenant_quota_used_ratio",
            "What a tenant had spent of a quota (window, month) when its last request began",
            "livemostrecent",
            ["tenant", "quota"],
        )
        self.tenant_eflops = Counter(
            "kinetics_tenant_eflops", "eFLOPs charged to a tenant", ["tenant", *_LABELS], registry=self.registry
        )

        self.plan_requests = self._of_task("kinetics_plan_requests", "Requests that a calibration's plan decided")
        self.plan_expected = self._of_task("kinetics_plan_expected_eflops", "eFLOPs that their plans expect")
        self.plan_spent = self._of_task("kinetics_plan_spent_eflops", "eFLOPs that they spent")
        self.plan_expected_agreement = self._of_task(
            "kinetics_plan_expected_agreement",
            "Sum of the shares of votes that plans expect to say what the answer says",
        )
        self.plan_agreement = self._of_task(
            "kinetics_plan_agreement", "Sum of the shares of votes that did, of the same requests"
        )
        self.plan_drifted = self._gauge(
            "kinetics_plan_drifted",
            "1 where recent requests are not as calibrated, by figure: spend, agreement",
            "livemax",
            ["task", "figure"],
        )

    def exposition(self) -> bytes:
        """What Prometheus reads: of this process, or of all workers."""
        if METRICS_FOLDER not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        folder = os.environ[METRICS_FOLDER]
        registry.register(collector(folder))
        with unchanging(folder):
            return generate_latest(registry)

    def queued(self, waiting: int, load: float) -> None:
        """Notes how many requests wait to run, and the share of what may run at once that does."""
        self.waiting.set(waiting)
        self.load.set(load)

    def outbox(self, entries: int, rejected: int, oldest_s: float) -> None:
        """Notes what waits in the outbox."""
        self.outbox_entries.set(entries)
        self.outbox_rejected.set(rejected)
        self.outbox_oldest.set(oldest_s)

    def settled_late(self, eflops: int) -> None:
        """Notes a bill that was booked when its lease had expired."""
        self.late.inc()
        self.late_eflops.inc(eflops)

    def checked(self, upstream: str, up: bool, openings: int) -> None:
        """Notes an upstream's health. openings: how often its circuit has opened so far."""
        self.upstream_up.labels(upstream=upstream).set(up)
        self.circuit_openings.labels(upstream=upstream).inc(openings - self._openings.get(upstream, 0))
        self._openings[upstream] = openings

    @contextmanager
    def charging(
        self, tenant: str, model: str, strategy: str, quotas_used: Mapping[str, float], spent: Callable[[], int]
    ) -> Iterator[None]:
        """Notes what a tenant has used of its quotas, and when its request is over, what that has spent."""
        for quota, ratio in quotas_used.items():
            self.tenant_quota.labels(tenant=tenant, quota=quota).set(ratio)
        try:
            yield
        finally:
            self.tenant_eflops.labels(tenant=tenant, model=model, strategy=strategy).inc(spent())

    def settled(self, run: Run) -> None:
        """Books a request's samples and money. Call once a request, when nothing of it runs any more."""
        labels = labels_of(run)
        self.eflops.labels(**labels, component="compute").inc(run.cost.compute_flops)
        self.eflops.labels(**labels, component="memory").inc(run.cost.memory_bytes * run.arms[0].price.intensity)
        self.saved.labels(**labels, reason="sparse_attention").inc(run.sparse_eflops)
        self.saved.labels(**labels, reason="shared_prefix").inc(run.shared_prefix_eflops)
        self.saved.labels(**labels, reason="early_stop").inc(run.early_stop_eflops)
        for sample in run.samples:
            self.samples.labels(**labels, outcome=sample.status.value).inc()
        self.tokens.labels(**labels, kind="prompt").inc(run.arms[0].prompt_tokens)
        self.tokens.labels(**labels, kind="cached_prompt").inc(sum(run.cached_tokens.values()))
        self.tokens.labels(**labels, kind="completion").inc(run.completion_tokens)
        self.utilization.labels(**labels).observe(run.account.spent / run.account.budget)
        if run.finish is not None and run.finish.confidence is not None:
            self.confidence.labels(**labels).observe(run.finish.confidence)
        if (agreement := run.agreement) is not None:
            self.agreement.labels(**labels).observe(agreement)
        self.samples_per_answer.labels(**labels).observe(run.samples_ended)

    def planned(
        self, task: str, expected: float, spent: float, expected_agreement: float | None, agreement: float
    ) -> None:
        """Notes what the plan of a calibration let a request expect, in eFLOPs and of its votes, and what came."""
        self.plan_requests.labels(task=task).inc()
        self.plan_expected.labels(task=task).inc(expected)
        self.plan_spent.labels(task=task).inc(spent)
        if expected_agreement is not None:
            self.plan_expected_agreement.labels(task=task).inc(expected_agreement)
            self.plan_agreement.labels(task=task).inc(agreement)

    def passed_through(self, model: str) -> "PassedThrough":
        """To be entered while a request without a budget is with vLLM."""
        return PassedThrough(self, model)

    def _gauge(self, name: str, text: str, over_workers: Mode, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry, multiprocess_mode=over_workers)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(name, text, [*_LABELS, *labels], registry=self.registry)

    def _of_task(self, name: str, text: str) -> Counter:
        return Counter(name, text, ["task"], registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, _LABELS, buckets=buckets, registry=self.registry)


def labels_of(run: Run) -> dict[str, str]:
    """A request is counted for its first arm's model, whichever answers in the end."""
    return {"model": run.arms[0].model, "strategy": run.policy.name}


class PassedThrough:
    """One request without a budget. Counted as cancelled unless something else is said before it is left."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._labels = {"model": model, "strategy": PASS_THROUGH}
        self._arrived = time.monotonic()
        self._began = False
        self._outcome = "cancelled"

    def began(self) -> None:
        """Something of the answer is there."""
        if not self._began:
            self._began = True
            self._metrics.first_token.labels(**self._labels).observe(time.monotonic() - self._arrived)

    def answered(self, status: int) -> None:
        """The whole answer is there, with this HTTP status."""
        self._outcome = "completed" if status < 400 else "rejected" if status < 500 else "failed"

    def failed(self) -> None:
        self._outcome = "failed"

    def __enter__(self) -> "PassedThrough":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self.failed()
        self._metrics.requests.labels(**self._labels, outcome=self._outcome).inc()
        self._metrics.duration.labels(**self._labels).observe(time.monotonic() - self._arrived)
