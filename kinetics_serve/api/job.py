"""One budgeted request: checked, planned, run, and billed."""

import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from kinetics_serve.api.errors import ApiError, invalid
from kinetics_serve.api.options import ConfidenceScorer, KineticsOptions
from kinetics_serve.api.prompt import Prompt, prompt_of
from kinetics_serve.api.scoring import scorer_of
from kinetics_serve.api.services import Services
from kinetics_serve.cost import Cost
from kinetics_serve.engine import sparse
from kinetics_serve.engine.completion import ChatCompletion, Completion
from kinetics_serve.engine.live_source import LiveSource
from kinetics_serve.engine.pool import ServedModel
from kinetics_serve.engine.route import Route
from kinetics_serve.engine.upstream import Json
from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.planner.choose import choose_for_accuracy, choose_for_budget, fitting
from kinetics_serve.planner.plan import Plan, plan
from kinetics_serve.runner.answer_groups import AnswerGroups
from kinetics_serve.runner.live import Source, drive
from kinetics_serve.runner.run import Ended, Run, Terms
from kinetics_serve.scorers.scored_source import ScoredSource
from kinetics_serve.scorers.scorer import Scorer
from kinetics_serve.strategies.answers import extractor
from kinetics_serve.strategies.confidence import window_tokens
from kinetics_serve.strategies.state import Sample, Status
from kinetics_serve.strategies.votes import tally


async def terms_of(
    body: Json, options: KineticsOptions, completion: type[Completion], services: Services
) -> tuple[Route, Prompt, Terms]:
    """Checks a budgeted request, chooses its server, and prices its prompt. Raises what api.errors knows."""
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise invalid(f"model must be a text, given: {model!r:.100}", "model")
    route = Route(services.pool, model, body)
    served = route.served
    if served.price is None:
        raise ApiError(
            503,
            "engine_unavailable",
            f"requests to {served.name!r} can't be priced: {served.problem}. The server's administrator can name "
            "the model's folder or Hugging Face name with --architecture",
        )
    prompt = prompt_of(body, completion, served.name)
    if prompt.greedy and options.strategy not in ("auto", "single"):
        raise invalid(
            f"temperature 0 gives the same sample every time, so {options.strategy} would pay for copies: state a "
            'temperature above 0, or the strategy "single"',
            "temperature",
        )
    if isinstance(options.kv_budget, int) and served.kv.budget is None:
        raise invalid(
            f"the engine that serves {served.name!r} runs without sparse attention, so a KV budget of "
            f'{options.kv_budget} tokens has no effect there: leave kv_budget out or state "dense"',
            "kinetics.kv_budget",
        )
    kv = sparse.requested(options.kv_budget, served.kv)
    prompt = replace(prompt, body=prompt.body | sparse.request_fields(prompt.body, kv, served.kv))
    prompt_tokens = await route.ask(prompt.count_tokens)
    context = served.card.max_model_len or served.price.architecture.max_context
    room = context - prompt_tokens if context is not None else 2**31
    if room < 1:
        raise invalid(
            f"the prompt has {prompt_tokens} tokens, which leaves no room for an answer in the context of {context} "
            f"tokens of {served.name!r}: shorten it",
            "messages" if completion is ChatCompletion else "prompt",
        )
    max_tokens = min(prompt.max_tokens or room, room)
    return route, prompt, Terms(served.price, prompt_tokens, max_tokens, options.max_samples, kv)


def plan_of(
    options: KineticsOptions, prompt: Prompt, model: ServedModel, terms: Terms, calibration: Calibration | None
) -> Plan:
    """Raises BudgetTooSmall, and AccuracyOutOfReach for a budget by accuracy.

    A calibration decides for the strategy `auto` and for a budget by accuracy, where it knows the model.
    """
    assert options.budget is not None
    accuracy = options.budget.accuracy
    if accuracy is None:
        budget = options.budget.budget()
        if calibration is not None and options.strategy == "auto" and not prompt.greedy:
            chosen = choose_for_budget(calibration, budget.eflops(terms), fitting(calibration, model.name, terms))
            if chosen is not None:
                return chosen.plan(budget.eflops(terms))
        return plan(options.strategy, budget, terms, options.stop_confidence, prompt.greedy)
    if calibration is None:
        options.budget.budget()  # raises
    assert calibration is not None
    if options.strategy != "auto" or prompt.greedy:
        raise invalid(
            'a budget by accuracy buys what the calibration measured: leave the strategy at "auto" and the '
            "temperature above 0",
            "kinetics.strategy" if options.strategy != "auto" else "temperature",
        )
    cheapest = choose_for_accuracy(calibration, accuracy, fitting(calibration, model.name, terms))
    return cheapest.plan(cheapest.budget)


class Job:
    """A budgeted request that can be run. Make one with `create`."""

    def __init__(
        self,
        services: Services,
        options: KineticsOptions,
        route: Route,
        prompt: Prompt,
        plan: Plan,
        arrived: float,
        scorer: Scorer | None = None,
    ) -> None:
        self.prompt = prompt
        self.run = Run(plan.policy, plan.terms, plan.budget)
        self._services = services
        self._options = options
        self._model = route.served.name
        self._arrived = arrived
        self._first_token_s: float | None = None
        self._chat = prompt.completion is ChatCompletion
        self._id = f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        answer = options.answer.for_format(prompt.body.get("response_format"))
        ignored = frozenset(answer.ignored_fields)
        self._source = LiveSource(
            route,
            prompt.body,
            plan.terms.prompt_tokens,
            lambda: prompt.completion(prompt.top_logprobs, window_tokens(plan.terms.max_tokens)),
            extractor(answer.extractor, answer.pattern, ignored),
            AnswerGroups(answer.equivalence, services.math_pool.equal),
            options.scorer.statistic if isinstance(options.scorer, ConfidenceScorer) else "mean",
            ignored,
        )
        self._samples: Source = self._source
        if scorer is not None:
            self._samples = ScoredSource(self._source, scorer, lambda index: self._source.completions[index].text)

    @classmethod
    async def create(
        cls, body: Json, options: KineticsOptions, completion: type[Completion], services: Services
    ) -> "Job":
        """Raises what api.errors knows; nothing is spent by then."""
        arrived = time.monotonic()
        route, prompt, terms = await terms_of(body, options, completion, services)
        scorer = await scorer_of(options, prompt, route.served, services)
        if scorer is not None:
            terms = replace(terms, scoring=scorer.worst_case)
        chosen = plan_of(options, prompt, route.served, terms, services.settings.calibration)
        return cls(services, options, route, prompt, chosen, arrived, scorer)

    @property
    def model(self) -> str:
        return self._model

    @property
    def reports_progress(self) -> bool:
        return self._options.progress

    @property
    def strategy(self) -> str:
        return self.run.policy.name

    def spent_so_far(self) -> int:
        """eFLOPs, with what running samples have generated, as if each were alone; never more than the budget."""
        terms, running = self.run.terms, self.run.state.with_status(Status.RUNNING)
        return self.run.account.spent + sum(terms.worst_case(sample.tokens) for sample in running if sample.tokens)

    async def work(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Spends the budget. Whatever happens, samples are stopped, and what they cost is booked, afterwards."""

        def changed() -> None:
            if self._first_token_s is None and any(sample.tokens for sample in self.run.samples):
                self._first_token_s = time.monotonic() - self._arrived
            on_change()

        outcome = "failed"
        try:
            await drive(self.run, self, deadline_s=self._options.deadline_s, on_change=changed)
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
            async with aclosing(self._samples.sample(sample)) as events:
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
            "model": self._model,
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
            "model": self._model,
            "kv_budget": run.terms.kv.budget or "dense",
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
        if self._options.scorer.kind != "confidence":
            eflops = run.terms.eflops(run.scoring_cost)
            bill["scorer"] = {"kind": self._options.scorer.kind, "spent_eflops": eflops}
        if self._options.include_samples:
            bill["samples"] = [self._sample_report(sample) for sample in run.samples]
        return bill

    @property
    def _labels(self) -> dict[str, str]:
        return {"model": self._model, "strategy": self.run.policy.name}

    @property
    def _completion_tokens(self) -> int:
        return sum(sample.tokens for sample in self.run.samples)

    @property
    def _samples_finished(self) -> int:
        """Samples that ran to their end, be it max_tokens."""
        return sum(1 for _ in self.run.state.with_status(Status.FINISHED, Status.TRUNCATED))

    def _winner(self) -> Completion:
        assert self.run.finish is not None
        winner = self.run.finish.winner
        if winner is not None:
            return self._source.completions[winner]
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

    def _sample_report(self, sample: Sample) -> Json:
        completion = self._source.completions.get(sample.index)
        return {
            "index": sample.index,
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
            "model": self._model,
            "choices": choices,
            **more,
        }

    def _book(self, outcome: str) -> None:
        metrics = self._services.metrics
        metrics.settled(self.run, self._model)
        metrics.requests.labels(**self._labels, outcome=outcome).inc()
        metrics.duration.labels(**self._labels).observe(time.monotonic() - self._arrived)
        if self._first_token_s is not None:
            metrics.first_token.labels(**self._labels).observe(self._first_token_s)
