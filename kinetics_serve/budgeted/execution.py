"""One budgeted request at work."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from kinetics_serve import clock
from kinetics_serve.budgeted.arms import LiveArm
from kinetics_serve.budgeted.notes import notes_of
from kinetics_serve.budgeted.prepare import Prepared
from kinetics_serve.budgeted.reading import reader_of
from kinetics_serve.observability.metrics import labels_of
from kinetics_serve.planner.drift import Promise
from kinetics_serve.requests import load
from kinetics_serve.requests.admission import Load
from kinetics_serve.requests.deadline import Deadline
from kinetics_serve.requests.drain import stopping
from kinetics_serve.requests.services import Services
from kinetics_serve.runner.live import Source, drive
from kinetics_serve.runner.run import STREAM_INTERVAL, Ended, Extra, Run
from kinetics_serve.sources.completion import Completion
from kinetics_serve.sources.forced import ForcedSource
from kinetics_serve.sources.grouped import GroupedSource
from kinetics_serve.sources.live import LiveSource
from kinetics_serve.sources.scored import ScoredSource
from kinetics_serve.strategies.confidence import window_tokens
from kinetics_serve.strategies.state import Sample


class Execution:
    """A prepared request's run on the upstreams, whose samples come from it."""

    def __init__(self, prepared: Prepared, services: Services, deadline: Deadline) -> None:
        """Plans the run, and raises what `Prepared.plan` does. Nothing is spent before `work`."""
        plan = prepared.plan()
        self.prompt = plan.arms[0].prompt
        self.options = prepared.options
        watched = self.prompt.stream and self.options.progress
        calls = "tools" in self.prompt.body  # some of vLLM's parsers take in one part of a call at a time
        self._stream_interval = 1 if watched or calls else STREAM_INTERVAL
        self.run = Run(plan.policy, plan.arms, plan.budget, self._stream_interval)
        self._promise = Promise.of(plan)
        self.notes = notes_of(plan)
        self.deadline = deadline
        self._services = services
        self._first_token_s: float | None = None
        self.reader = reader_of(self.options.answer, self.prompt.body, services.math_pool, services.programs)
        self._live = [self._live_source(arm) for arm in plan.arms]
        pairs = zip(self._live, plan.arms, strict=True)
        self._sources = [self._source(live, arm, prepared) for live, arm in pairs]

    @property
    def load(self) -> Load:
        """What it is expected to keep busy."""
        return load.budgeted(self.run.arms[0], self.run.account.budget)

    @property
    def started(self) -> bool:
        """A sample has generated its first token."""
        return self._first_token_s is not None

    def completion_of(self, sample: Sample) -> Completion | None:
        """What the sample has said so far; None before it was sent."""
        return self._live[sample.arm].completions.get(sample.index)

    async def work(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Spends the budget. Whatever happens, samples are stopped, and what they cost is booked, afterwards."""

        def changed() -> None:
            if self._first_token_s is None and any(sample.tokens for sample in self.run.samples):
                self._first_token_s = clock.now() - self.deadline.arrived
            on_change()

        self._services.math_pool.warm()  # while the first samples are generated
        outcome = "failed"
        try:
            stop = self._services.drain.over
            finish = await drive(self.run, self, deadline_s=self.deadline.remaining_s, stop=stop, on_change=changed)
            if stop.is_set() and finish.winner is None:
                raise stopping()
            outcome = "completed"
        except BaseException as error:
            outcome = "failed" if isinstance(error, Exception) else "cancelled"
            raise
        finally:
            self._book(outcome)

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Extra | Ended, None]:
        """The sample of its arm's source, counted while it runs."""
        gauge = self._services.metrics.inflight.labels(**labels_of(self.run))
        with gauge.track_inprogress():
            async with aclosing(self._sources[sample.arm].sample(sample)) as events:
                async for event in events:
                    yield event

    def _live_source(self, arm: LiveArm) -> LiveSource:
        return LiveSource(
            arm.route,
            arm.prompt.body,
            arm.prompt_tokens,
            lambda: arm.prompt.new_completion(window_tokens(arm.max_tokens)),
            self.reader,
            getattr(self.options.scorer, "statistic", "mean"),
            self._stream_interval,
        )

    def _source(self, live: LiveSource, arm: LiveArm, prepared: Prepared) -> Source:
        """The live samples; their answers forced and grouped, and their scores given, where the request asks for it."""
        source: Source = live
        if force_tokens := self.options.answer.force_tokens:
            source = ForcedSource(live, arm.route, arm.prompt.body, arm.forcing(force_tokens), self.reader)
        if prepared.groups is not None:
            source = GroupedSource(source, prepared.groups)
        if prepared.scorer is not None:
            source = ScoredSource(source, prepared.scorer, lambda index: live.completions[index].text)
        return source

    def _book(self, outcome: str) -> None:
        metrics, labels = self._services.metrics, labels_of(self.run)
        metrics.settled(self.run)
        if outcome == "completed" and self._promise is not None and self._services.plan_watch is not None:
            self._services.plan_watch.ended(self._promise, self.run)
        metrics.requests.labels(**labels, outcome=outcome).inc()
        metrics.duration.labels(**labels).observe(clock.now() - self.deadline.arrived)
        if self._first_token_s is not None:
            metrics.first_token.labels(**labels).observe(self._first_token_s)
