"""A front-end as a server has it, but for HTTP and for what is outside: engines, database, disk, other processes."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import cast

import aiohttp
from starlette.requests import Request

from benchmarks.fleet.engine import Died, Engine
from kinetics_serve.answers.algebra import MathPool
from kinetics_serve.answers.behaviour import ProgramRunner
from kinetics_serve.answers.equivalence import slow_key
from kinetics_serve.budgeted.answer import Answer
from kinetics_serve.budgeted.serve import planned, run_in_turn, stated_options
from kinetics_serve.cost import HardwareProfile, load_architecture
from kinetics_serve.engine.chunks import (
    BRIEF,
    AnyChunk,
    Candidate,
    Choice,
    Chunk,
    Decoder,
    Delta,
    Logprobs,
    PromptDetails,
    TokenLogprobs,
    Usage,
)
from kinetics_serve.engine.errors import EngineUnavailable
from kinetics_serve.engine.info import EngineInfo
from kinetics_serve.engine.pool import Pool
from kinetics_serve.engine.upstream import Json, ModelCard, Upstream
from kinetics_serve.ledger.delivery import Delivery
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.ledger.outbox import Outbox
from kinetics_serve.observability.metrics import Metrics
from kinetics_serve.requests.admission import Admission, Capacity, Load
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.drain import Drain
from kinetics_serve.requests.services import Services, Settings
from kinetics_serve.runner.run import Run
from kinetics_serve.sources.completion import ChatCompletion
from kinetics_serve.strategies.state import Status
from kinetics_serve.traces.traces import Question, Traces, Trial

DRAIN_S = 45.0
"""What a front-end that stops gives its requests: the manifests' value."""

TELL_EVERY = 512
"""Tokens after which a sample says how far it is. A real one says it after every token."""

MARK = "\n\nConversation "
"""Before the number that makes one recorded question many prompts."""


class Recordings:
    """What simulated engines say: a recorded trial of the question that they are asked, some times as long."""

    def __init__(self, traces: Traces, stretch: int, random: Random) -> None:
        self.model = traces.metadata.model
        self.max_tokens = traces.longest * stretch
        self.questions = traces.questions
        self._by_query = {question.query: question for question in traces.questions}
        self._stretch = stretch
        self._random = random

    def question(self, body: Json) -> Question:
        query, _, _ = body["messages"][-1]["content"].rpartition(MARK)
        return self._by_query[query]

    def trial(self, question: Question) -> Trial:
        return self._random.choice(question.trials)

    def tokens(self, trial: Trial) -> int:
        return max(1, trial.tokens * self._stretch)


class EngineClient(Upstream):
    """A front-end's way to a simulated engine, without HTTP."""

    def __init__(self, engine: Engine, card: ModelCard, recordings: Recordings) -> None:
        super().__init__(engine.url, cast(aiohttp.ClientSession, None))
        self._engine = engine
        self._card = card
        self._recordings = recordings

    async def check_health(self) -> None:
        if not self._engine.up:
            raise EngineUnavailable("nobody listens")

    async def models(self) -> list[ModelCard]:
        return [self._card]

    async def info(self) -> EngineInfo:
        return EngineInfo()

    async def count_tokens(self, body: Json) -> int:
        if not self._engine.up:
            raise self._lost("nobody listens")
        return self._recordings.question(body).prompt_tokens

    @asynccontextmanager
    async def stream(
        self, path: str, body: Json, decoder: Decoder = BRIEF
    ) -> AsyncIterator[AsyncIterator[Sequence[AnyChunk]]]:
        self.outstanding += 1
        try:
            if not self._engine.up:
                raise self._lost("nobody listens")
            async with aclosing(self._said(body)) as said:
                yield said
        except Died:
            raise self._broken("the engine broke off") from None
        finally:
            self.outstanding -= 1

    async def _said(self, body: Json) -> AsyncGenerator[Sequence[AnyChunk], None]:
        question = self._recordings.question(body)
        trial = self._recordings.trial(question)
        tokens = min(self._recordings.tokens(trial), body["max_tokens"])
        whole = trial.status is Status.FINISHED and self._recordings.tokens(trial) <= body["max_tokens"]
        prompt = blake2b(json.dumps([body.get("cache_salt"), body["messages"]]).encode(), digest_size=16).digest()
        told = sorted({1, *range(TELL_EVERY, tokens, TELL_EVERY), tokens})
        async with aclosing(self._engine.generate(prompt, question.prompt_tokens, told)) as events:
            async for count, cached in events:
                usage = Usage(question.prompt_tokens, count, PromptDetails(cached))
                choice: Choice[Logprobs] = Choice(Delta("" if count < tokens else trial.text))
                if count == tokens:
                    choice.finish_reason = "stop" if whole else "length"
                    candidates = [Candidate(-trial.confidence)] * 2  # whose mean is what was recorded
                    choice.logprobs = Logprobs([TokenLogprobs(-trial.confidence, candidates)])
                yield [Chunk([choice], usage)]
        self.circuit.succeeded()


class QuickKeys(MathPool):
    """Answers without computer algebra: what needs that equals only what is written alike."""

    async def _worked_out(self, answer: str) -> str:
        return slow_key(answer)

    def _start(self) -> None:
        pass


class WatchedAdmission(Admission):
    """Keeps how long requests waited, in seconds."""

    def __init__(self, capacity: Capacity, metrics: Metrics, waits: list[float]) -> None:
        super().__init__(capacity, metrics.queued)
        self._waits = waits

    @asynccontextmanager
    async def slot(self, tenant: str, load: Load, within_s: float | None = None) -> AsyncIterator[float]:
        async with super().slot(tenant, load, within_s) as waited_s:
            self._waits.append(waited_s)
            yield waited_s


class FrontEnd:
    """What an app has for all of its requests, and how it answers one."""

    def __init__(
        self,
        engines: Sequence[Engine],
        hardware: HardwareProfile,
        folder: Path,
        recordings: Recordings,
        ledger: Ledger,
        outbox: Outbox,
        capacity: Capacity,
        waits: list[float],
    ) -> None:
        """folder: of the model's config.json. waits: gets what requests waited for their turn."""
        metrics = Metrics()
        card = ModelCard(recordings.model, str(folder), None, {})
        self.pool = Pool(
            [EngineClient(engine, card, recordings) for engine in engines],
            hardware,
            on_health=lambda upstream, up: metrics.checked(upstream.url, up, upstream.circuit.openings),
        )
        self._delivery = Delivery(ledger, outbox, metrics)
        self.services = Services(
            Settings(capacity=capacity),
            self.pool,
            metrics,
            QuickKeys(),
            ProgramRunner(),
            cast(aiohttp.ClientSession, None),
            WatchedAdmission(capacity, metrics, waits),
            Drain(),
            ledger,
            self._delivery,
        )
        self._working: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when it has checked its engines."""
        self._working = [asyncio.create_task(work) for work in (self.pool.watch(), self._delivery.run())]
        await self.pool.checked()

    async def stop(self) -> None:
        """Finishes what runs, within the time that a server has for it."""
        await self.services.drain.run(DRAIN_S, asyncio.Event())
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        await self._delivery.close()

    async def answer(self, body: Json, tenant: Tenant, ran: Callable[[Run], None]) -> Json:
        """The response to a request. ran: called with its run, also where that fails. Raises KineticsError."""
        task = asyncio.current_task()
        assert task is not None
        requests = self.services.drain.requests
        requests.add(task)
        try:
            request = Request({"type": "http", "method": "POST", "path": ChatCompletion.path, "headers": []})
            sent = body | {"cache_salt": tenant.cache_salt}
            call = Call(request, self.services, tenant, b"", sent)
            options = stated_options(call, None)
            assert options is not None
            execution = await planned(call, sent, options, ChatCompletion)
            try:
                await run_in_turn(call, execution)
            finally:
                ran(execution.run)
            return Answer(execution).response()
        finally:
            requests.discard(task)


def config_of(traces: Traces, config: Mapping[str, object], folder: Path) -> Path:
    """Writes a model's config.json, by which a front-end prices it. Raises ValueError where it is another model's."""
    (folder / "config.json").write_text(json.dumps(config))
    recorded, written = traces.metadata.architecture, load_architecture(str(folder))
    if recorded is None or recorded.parameters != written.parameters:
        raise ValueError(f"the traces are of a model with another number of parameters than {written.parameters:,}")
    return folder
