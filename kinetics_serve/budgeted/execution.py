"""One budgeted request: checked, planned, run, and billed."""

import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from kinetics_serve.requests.admission import Load
from kinetics_serve.requests import load
from kinetics_serve.requests.deadline import Deadline
from kinetics_serve.requests.drain import stopping
from kinetics_serve.budgeted.arms import Offer, forcing_of, offers_of, plan_of, with_reserves
from kinetics_serve.budgeted.options import AnswerOption, ConfidenceScorer, KineticsOptions
from kinetics_serve.budgeted.prompt import Prompt
from kinetics_serve.budgeted.scoring import scorer_of
from kinetics_serve.requests.services import Services
from kinetics_serve.cost import ZERO, Cost
from kinetics_serve.sources.completion import ChatCompletion, Completion
from kinetics_serve.sources.forced import ForcedSource
from kinetics_serve.sources.live import LiveSource
from kinetics_serve.engine.route import Route
from kinetics_serve.engine.upstream import Json
from kinetics_serve.planner.plan import Plan
from kinetics_serve.answers.groups import AnswerGroups
from kinetics_serve.runner.live import Source, drive
from kinetics_serve.runner.run import Ended, Run, Terms
from kinetics_serve.sources.scored import ScoredSource
from kinetics_serve.scorers.scorer import Scorer
from kinetics_serve.answers.extract import extractor
from kinetics_serve.strategies.confidence import window_tokens
from kinetics_serve.strategies.state import Sample, Status
from kinetics_serve.strategies.votes import tally


class Job:
    """A budgeted request that can be run. Make one with `create`."""

    def __init__(
        self,
        services: Services,
        options: KineticsOptions,
        plan: Plan,
        arms: tuple[Offer, ...],
        deadline: Deadline,
        scorer: Scorer | None = None,
    ) -> None:
        self.prompt = arms[0].prompt
        self.run = Run(plan.policy, plan.terms, plan.budget, *plan.others)
        self._services = services
        self._options = options
        self._models = [arm.model for arm in arms]
        self.deadline = deadline
        self._first_token_s: float | None = None
        self._chat = self.prompt.completion is ChatCompletion
        self._id = f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        answer = options.answer.for_format(self.prompt.body.get("response_format"))
        groups = AnswerGroups(answer.equivalence, services.math_pool)
        self._sources = [
            _source(options, answer, arm.route, arm.prompt, terms, groups)
            for arm, terms in zip(arms, self.run.arms, strict=True)
        ]
        self._samples: list[Source] = list(self._sources)
        self._forced: list[ForcedSource] = []
        if answer.force_tokens:
            extract = extractor(answer.extractor, answer.pattern)
            self._forced = [
                ForcedSource(source, arm.route, arm.prompt.body, forcing_of(arm, answer.force_tokens), extract, groups)
                for source, arm in zip(self._sources, arms, strict=True)
            ]
            self._samples = list(self._forced)
        if scorer is not None:  # of a strategy that the client named, which has one arm
            completions = self._sources[0].completions
            self._samples = [ScoredSource(self._samples[0], scorer, lambda index: completions[index].text)]

    @classmethod
    async def create(
        cls,
        body: Json,
        options: KineticsOptions,
        completion: type[Completion],
        services: Services,
        may_use: Callable[[str], bool] = lambda model: True,
    ) -> "Job":
        """may_use: whether the client may use a model. Raises what api.errors knows; nothing is spent by then."""
        deadline = services.deadline(options.deadline_s)
        async with deadline.awaiting_engine():  # which counts the prompt's tokens
            offers = await offers_of(body, options, completion, services, may_use)
            scorer = await scorer_of(options, offers[0].prompt, offers[0].route.served, services)
        offers = [with_reserves(offer, options, scorer) for offer in offers]
        plan, arms = plan_of(options, offers, services.settings.calibration)
        return cls(services, options, plan, arms, deadline, scorer)

    @property
    def model(self) -> str:
        """Whose answer it is: of a cascade, the first model's until it has ended."""
        finish = self.run.finish
        winner = finish.winner if finish is not None else None
        return self._models[0 if winner is None else self.run.samples[winner].arm]

    @property
    def reports_progress(self) -> bool:
        return self._options.progress

    @property
    def strategy(self) -> str:
        return self.run.policy.name

    @property
    def load(self) -> Load:
        """What it is expected to keep busy."""
        return load.budgeted(self.run.terms, self.run.account.budget)

    def spent_so_far(self) -> int:
        """eFLOPs, with what running samples have generated, as if each were alone; never more than the budget."""
        running = [sample for sample in self.run.state.with_status(Status.RUNNING) if sample.tokens]
        arms = self.run.arms
        return self.run.account.spent + sum(arms[sample.arm].worst_case(sample.tokens) for sample in running)

    async def work(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Spends the budget. Whatever happens, samples are stopped, and what they cost is booked, afterwards."""

        def changed() -> None:
            if self._first_token_s is None and any(sample.tokens for sample in self.run.samples):
                self._first_token_s = time.monotonic() - self.deadline.arrived
            on_change()

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

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Cost | Ended, None]:
        """The source's sample, counted while it runs."""
        gauge = self._services.metrics.inflight.labels(**self._labels)
        with gauge.track_inprogress():
            async with aclosing(self._samples[sample.arm].sample(sample)) as events:
                async for event in events:
                    yield event

    @property
    def started(self) -> bool:
        """A sample has generated its first token."""
        return self._first_token_s is not None

    def response(self) -> Json:
        """The answer of a request that is not streamed."""
        return {
            "id": self._id,
            "object": "chat.completion" if self._chat else "text_completion",
            "created": self._created,
            "model": self.model,
            "choices": [self._winner().choice()],
            "usage": self._usage(),
            "kinetics": self.bill(),
        }

    def progress(self) -> Json:
        """A chunk that says how far the request is and leaves the text alone."""
        state = {
            "spent_eflops": self.run.account.spent,
            "reserved_eflops": self.run.account.reserved,
            "budget_eflops": self.run.account.budget,
            "samples_started": len(self.run.samples),
            "samples_running": self.run.state.running,
            "samples_finished": self._samples_finished,
            "completion_tokens": self._completion_tokens,
            "votes": self._votes(),
        }
        untouched: Json = {"delta": {}} if self._chat else {"text": ""}
        empty = {"index": 0, "finish_reason": None} | untouched
        return self._chunk([empty], kinetics=state)

    def chunks(self) -> list[Json]:
        """The winner as a stream's chunks, the bill on the last that has a choice."""
        choices = self._winner().deltas()
        chunks = [self._chunk([choice]) for choice in choices[:-1]]
        chunks.append(self._chunk(choices[-1:], kinetics=self.bill()))
        if self.prompt.include_usage:
            chunks.append(self._chunk([], usage=self._usage()))
        return chunks

    def bill(self) -> Json:
        """The `kinetics` object of the response."""
        run = self.run
        assert run.finish is not None
        winner = run.finish.winner
        intensity = run.terms.price.intensity
        bill: Json = {
            "strategy": run.policy.name,
            "model": self.model,
            "kv_budget": run.arms[run.samples[winner].arm if winner is not None else 0].kv.budget or "dense",
            "budget_eflops": run.account.budget,
            "spent_eflops": run.account.spent,
            "compute_flops": run.cost.compute_flops,
            "memory_bytes": run.cost.memory_bytes,
            "arithmetic_intensity": intensity,
            "samples_started": len(run.samples),
            "samples_finished": self._samples_finished,
            "stop_reason": run.finish.reason,
            "answer": run.samples[winner].answer if winner is not None else None,
            "confidence": run.finish.confidence,
            "votes": self._votes(),
        }
        if len(run.arms) > 1:
            bill["stages"] = [self._stage_report(arm) for arm in range(len(run.arms))]
        forced = sum([source.cost for source in self._forced], ZERO)
        if self._forced:
            tokens = sum(source.tokens for source in self._forced)
            bill["forced"] = {"completion_tokens": tokens, "spent_eflops": run.terms.eflops(forced)}
        if self._options.scorer.kind != "confidence":
            eflops = run.terms.eflops(run.scoring_cost - forced)
            bill["scorer"] = {"kind": self._options.scorer.kind, "spent_eflops": eflops}
        if self._options.include_samples:
            bill["samples"] = [self._sample_report(sample) for sample in run.samples]
        return bill

    @property
    def _labels(self) -> dict[str, str]:
        return {"model": self._models[0], "strategy": self.run.policy.name}

    @property
    def _completion_tokens(self) -> int:
        forced = sum(source.tokens for source in self._forced)
        return sum(sample.tokens for sample in self.run.samples) + forced

    @property
    def _samples_finished(self) -> int:
        """Samples that ran to their end, be it max_tokens."""
        return sum(1 for _ in self.run.state.with_status(Status.FINISHED, Status.TRUNCATED))

    def _winner(self) -> Completion:
        assert self.run.finish is not None
        winner = self.run.finish.winner
        if winner is not None:
            return self._sources[self.run.samples[winner].arm].completions[winner]
        return self.prompt.completion(self.prompt.top_logprobs)  # no sample has any text

    def _votes(self) -> list[Json]:
        return [{"answer": vote.answer, "count": vote.count, "weight": vote.weight} for vote in tally(self.run.samples)]

    def _usage(self) -> Json:
        prompt = self.run.terms.prompt_tokens
        completion = self._completion_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self.run.cached_tokens.get(0, 0)},
        }

    def _stage_report(self, arm: int) -> Json:
        samples = [sample for sample in self.run.samples if sample.arm == arm]
        return {
            "model": self._models[arm],
            "kv_budget": self.run.arms[arm].kv.budget or "dense",
            "samples_started": len(samples),
            "completion_tokens": sum(sample.tokens for sample in samples),
        }

    def _sample_report(self, sample: Sample) -> Json:
        completion = self._sources[sample.arm].completions.get(sample.index)
        return {
            "index": sample.index,
            "model": self._models[sample.arm],
            "status": sample.status.value,
            "tokens": sample.tokens,
            "answer": sample.answer,
            "score": sample.score,
            "text": completion.text if completion is not None else "",
        }

    def _chunk(self, choices: list[Json], **more: Any) -> Json:
        return {
            "id": self._id,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": self._created,
            "model": self.model,
            "choices": choices,
            **more,
        }

    def _book(self, outcome: str) -> None:
        metrics = self._services.metrics
        metrics.settled(self.run, self._models[0])
        metrics.requests.labels(**self._labels, outcome=outcome).inc()
        metrics.duration.labels(**self._labels).observe(time.monotonic() - self.deadline.arrived)
        if self._first_token_s is not None:
            metrics.first_token.labels(**self._labels).observe(self._first_token_s)


def _source(
    options: KineticsOptions, answer: AnswerOption, route: Route, prompt: Prompt, terms: Terms, groups: AnswerGroups
) -> LiveSource:
    ignored = frozenset(answer.ignored_fields)
    return LiveSource(
        route,
        prompt.body,
        terms.prompt_tokens,
        lambda: prompt.completion(prompt.top_logprobs, window_tokens(terms.max_tokens)),
        extractor(answer.extractor, answer.pattern, ignored),
        groups,
        options.scorer.statistic if isinstance(options.scorer, ConfidenceScorer) else "mean",
        ignored,
    )
