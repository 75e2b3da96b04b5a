"""Runs the trials of a task on a vLLM server, as many side by side as it may batch, and records them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from kinetics_serve.answers.algebra import MathPool
from kinetics_serve.answers.equivalence import EquivalenceKind
from kinetics_serve.answers.groups import AnswerGroups
from kinetics_serve.cost import KVPolicy
from kinetics_serve.engine.errors import EngineUnavailable
from kinetics_serve.engine.upstream import Json, Upstream
from kinetics_serve.evaluation.grading import Grading
from kinetics_serve.evaluation.side_by_side import side_by_side
from kinetics_serve.evaluation.tasks import Problem, Task
from kinetics_serve.sources.completion import ChatCompletion
from kinetics_serve.sources.live import SEED_RANGE, WHOLE
from kinetics_serve.strategies.confidence import window_tokens
from kinetics_serve.strategies.state import Status
from kinetics_serve.traces.recorder import Recorder
from kinetics_serve.traces.traces import Trial

REPETITION_DETECTION = {"min_pattern_size": 4, "max_pattern_size": 64, "min_count": 6}
"""vLLM ends a sample that repeats the same 4 to 64 tokens six times: it would go on to max_tokens."""

TRIES = 5
FIRST_PAUSE_S = 1.0
"""Before a failed trial is tried again; doubled each time."""

SEEDS_PER_PROBLEM = 1_000_003


@dataclass(frozen=True, slots=True)
class Sampling:
    """How samples are drawn."""

    max_tokens: int
    """Of each."""
    temperature: float = 0.7
    top_p: float = 1.0
    seed: int = 0
    """Of the first trial of the first question."""


class Harness:
    """One task on one model with one KV policy. on_trial: called with the tokens of every trial that is recorded."""

    def __init__(
        self,
        task: Task,
        upstream: Upstream,
        model: str,
        sampling: Sampling,
        kv: KVPolicy,
        recorder: Recorder,
        on_trial: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        self.task = task
        self._upstream = upstream
        self._model = model
        self._sampling = sampling
        self._kv = kv
        self._recorder = recorder
        self._on_trial = on_trial
        self._extract = task.extract()
        self._groups: dict[str, AnswerGroups] = {}

    def missing(self, trials: int) -> list[tuple[int, int]]:
        """The (problem, trial) numbers not recorded yet, so that every problem has as many trials at any time."""
        numbers = ((number, trial) for trial in range(trials) for number in range(len(self.task.problems)))
        return [pair for pair in numbers if (self.task.problems[pair[0]].query, pair[1]) not in self._recorder.done]

    async def run(self, trials: int, concurrency: int) -> None:
        """Records what is missing of `trials` trials of every problem, `concurrency` at a time.

        Raises EngineRejected and, after some tries, EngineUnavailable; what was recorded by then stays.
        """
        todo = iter(self.missing(trials))
        async with _math_pool() as pool:
            grading = Grading(self.task.grader, pool)

            async def work() -> None:
                for number, trial in todo:
                    await self._try(number, trial, pool, grading)

            await side_by_side(work, concurrency)

    async def _try(self, number: int, trial: int, pool: MathPool, grading: Grading) -> None:
        problem = self.task.problems[number]
        completion = await self._complete(self._body(problem, number, trial))
        whole = completion.finish_reason in WHOLE
        answer = self._extract(completion.text) if whole else None
        label = await self._groups_of(problem, pool).label(answer) if answer is not None else None
        recorded = Trial(
            trial,
            completion.text,
            completion.tokens,
            Status.FINISHED if whole else Status.TRUNCATED,
            label,
            label is not None and await grading.correct(problem, label),
            completion.confidence.mean,
            completion.confidence.worst_window,
            lows=tuple(completion.confidence.lows),
        )
        self._recorder.add(
            problem.query,
            problem.choices,
            completion.prompt_tokens,
            recorded,
            finish_reason=completion.finish_reason,
            cached_tokens=completion.cached_tokens,
        )
        self._on_trial(completion.tokens)

    @retry(
        retry=retry_if_exception_type(EngineUnavailable),
        stop=stop_after_attempt(TRIES),
        wait=wait_exponential(FIRST_PAUSE_S),
        reraise=True,
    )
    async def _complete(self, body: Json) -> ChatCompletion:
        completion = ChatCompletion(None, window_tokens(self._sampling.max_tokens))
        async with self._upstream.stream(completion.path, body) as chunks:
            async for arrived in chunks:
                for chunk in arrived:
                    completion.add(chunk)
        return completion

    def _body(self, problem: Problem, number: int, trial: int) -> Json:
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": self.task.prompt(problem)}],
            "max_tokens": self._sampling.max_tokens,
            "temperature": self._sampling.temperature,
            "top_p": self._sampling.top_p,
            "seed": (self._sampling.seed + number * SEEDS_PER_PROBLEM + trial) % (SEED_RANGE // 2),
            "stream": True,
            "stream_options": {"include_usage": True},
            "logprobs": True,
            "top_logprobs": ChatCompletion(None).wanted_logprobs,
            "repetition_detection": REPETITION_DETECTION,
            # Dense trials say so too: an engine with sparse attention has a KV budget of its own.
            "vllm_xargs": {"kv_budget": self._kv.budget or 0},
        }

    def _groups_of(self, problem: Problem, pool: MathPool) -> AnswerGroups:
        if problem.query not in self._groups:
            labels = self._recorder.labels.get(problem.query, ())
            kind: EquivalenceKind = "text" if self.task.grader == "tests" else "auto"
            self._groups[problem.query] = AnswerGroups(kind, pool, labels)
        return self._groups[problem.query]


@asynccontextmanager
async def _math_pool() -> AsyncIterator[MathPool]:
    pool = MathPool()
    try:
        yield pool
    finally:
        pool.close()
