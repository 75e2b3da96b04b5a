"""A plan put to the test: its task's questions, asked live as it says, and what came against what it promised."""

import random
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import inf, nextafter
from statistics import fmean
from typing import Any

import aiohttp
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from kinetics_serve.answers.algebra import MathPool
from kinetics_serve.cost import Price
from kinetics_serve.evaluation.grading import Grading
from kinetics_serve.evaluation.side_by_side import side_by_side
from kinetics_serve.evaluation.tasks import Problem, Task
from kinetics_serve.planner.calibration import SAME_INTENSITY, Calibration, ServedPoint
from kinetics_serve.traces.intervals import Interval, bootstrap, wilson

TRIES = 5
BUSY = (429, 502, 503, 504)

PRICED = frozenset({"sample_eflops", "max_tokens", "prompt_tokens", "arithmetic_intensity"})
"""What is read of a plan that a server makes."""


class VerificationError(ValueError):
    """The plan can't be put to the test; the message says why."""


class ServerBusy(VerificationError):
    """Another try may succeed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a question."""

    query: str
    correct: bool
    reserved: float
    """eFLOPs: the plan's budget for this prompt."""
    spent: float
    """eFLOPs."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a plan promised, and what was measured: each with its 95 % interval."""

    planned: Interval
    measured: Interval

    @property
    def within(self) -> bool:
        """Whether both can be true: their intervals meet."""
        return self.planned.low <= self.measured.high and self.measured.low <= self.planned.high


def compare(point: ServedPoint, asked: Sequence[Asked]) -> dict[str, Comparison]:
    """Accuracy, and the eFLOPs of a request: the plan expects a share of what is reserved for the prompts asked."""
    by_query: dict[str, list[Asked]] = {}
    for each in asked:
        by_query.setdefault(each.query, []).append(each)
    accuracy = fmean([fmean([each.correct for each in answers]) for answers in by_query.values()])
    reserved = fmean([fmean([each.reserved for each in answers]) for answers in by_query.values()]) / point.budget
    spent = Interval(point.spent.mean * reserved, point.spent.low * reserved, point.spent.high * reserved)
    return {
        "accuracy": Comparison(point.accuracy, wilson(accuracy, len(by_query))),
        "eFLOPs": Comparison(spent, bootstrap([[each.spent for each in answers] for answers in by_query.values()])),
    }


class Verification:
    """Asks the questions of `task` as `point` of the calibration says, on the server at `url`.

    api_key: what the server knows us by. Raises VerificationError where the plan can't be asked for.
    """

    def __init__(
        self, calibration: Calibration, point: ServedPoint, task: Task, url: str, api_key: str | None = None
    ) -> None:
        if len(point.arms) > 1:
            raise VerificationError(
                f"{point.strategy} runs on two models or KV budgets, which no request can ask for by name: narrow the "
                "plan down with --model"
            )
        if not task.problems:
            raise VerificationError(f"{task.name} has no questions")
        if task.grader == "tests":
            raise VerificationError(
                f"the answers to {task.name} are programs: no request can have them vote as recorded"
            )
        recorded = calibration.recorded_of(point.arm)
        self._sampling = recorded.request_fields if recorded is not None else {}
        template = recorded.sampling.get("template") if recorded is not None else None
        self._task = replace(task, template=template) if isinstance(template, str) else task
        self._point, self._arm = point, point.arm
        self._intensity = Price.on(calibration.architectures[self._arm.model], calibration.hardware).intensity
        self._hardware = calibration.hardware.name
        self._url = url
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def run(self, questions: int, concurrency: int, on_answer: Callable[[], None] = lambda: None) -> list[Asked]:
        """Questions drawn at random, the same in every run; all of them again where there are too few.

        Raises VerificationError where the server refuses one, or after some tries has no time for it.
        """
        problems = list(self._task.problems)
        random.Random(0).shuffle(problems)
        todo = islice(cycle(problems), questions)
        found: list[Asked] = []
        async with aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(total=None)) as client:
            with closing(MathPool()) as pool:
                grading = Grading(self._task.grader, pool)

                async def work() -> None:
                    for problem in todo:
                        found.append(await self._ask(client, problem, grading))
                        on_answer()

                await side_by_side(work, concurrency)
        return found

    async def _ask(self, client: aiohttp.ClientSession, problem: Problem, grading: Grading) -> Asked:
        body = self._body(problem)
        priced = await self._post(client, "/v1/kinetics/plan", body, PRICED)
        self._check(priced)
        reserved = int(self._point.samples_worth * priced["sample_eflops"])
        eflops = float(reserved)
        if eflops < reserved:  # rounded down, it would not cover the last sample
            eflops = nextafter(eflops, inf)
        budgeted = body | {"kinetics": body["kinetics"] | {"budget": {"eflops": eflops}}}
        bill = (await self._post(client, "/v1/chat/completions", budgeted, {"kinetics"}))["kinetics"]
        answer = bill["answer"]
        correct = answer is not None and await grading.correct(problem, answer)
        return Asked(problem.query, correct, reserved, bill["spent_eflops"])

    def _body(self, problem: Problem) -> dict[str, Any]:
        """A request that names all that the plan chose, but for the budget."""
        kinetics = {
            "strategy": self._point.strategy,
            "strategy_options": dict(self._point.options),
            "max_samples": self._arm.max_samples,
            "kv_budget": self._arm.kv.budget or "dense",
            "answer": {"extractor": self._task.extractor, "pattern": self._task.pattern},
        }
        return {
            "model": self._arm.model,
            "messages": [{"role": "user", "content": self._task.prompt(problem)}],
            "max_tokens": self._arm.max_tokens,
            **self._sampling,
            "kinetics": kinetics,
        }

    def _check(self, priced: dict[str, Any]) -> None:
        if priced["max_tokens"] < self._arm.max_tokens:
            raise VerificationError(
                f"the plan has samples of {self._arm.max_tokens} tokens, and the server has room for "
                f"{priced['max_tokens']} after a prompt of {priced['prompt_tokens']}"
            )
        if abs(priced["arithmetic_intensity"] / self._intensity - 1) > SAME_INTENSITY:
            raise VerificationError(
                f"the plan is for {self._hardware} ({self._intensity:.4g} FLOPs a byte), and the server prices for "
                f"{priced['arithmetic_intensity']:.4g}: run `kinetics-serve calibrate --hardware NAME` for its own on "
                "the same traces"
            )

    @retry(
        retry=retry_if_exception_type(ServerBusy),
        stop=stop_after_attempt(TRIES),
        wait=wait_exponential(1.0),
        reraise=True,
    )
    async def _post(
        self, client: aiohttp.ClientSession, path: str, body: dict[str, Any], wanted: AbstractSet[str]
    ) -> dict[str, Any]:
        url = self._url + path
        try:
            async with client.post(url, json=body) as response:
                answer = await response.json(content_type=None)
                if response.status == 200 and isinstance(answer, dict) and wanted <= answer.keys():
                    return answer
                error = answer.get("error") if isinstance(answer, dict) else None
                said = error.get("message") if isinstance(error, dict) else None
                kind = ServerBusy if response.status in BUSY else VerificationError
                raise kind(f"{url} answered {response.status}: {said or 'not as kinetics-serve does'}")
        except aiohttp.ClientError as error:
            raise ServerBusy(f"{url} can't be reached: {str(error) or type(error).__name__}") from None
        except (UnicodeDecodeError, ValueError) as error:
            if isinstance(error, VerificationError):
                raise
            raise VerificationError(f"{url} does not answer as kinetics-serve does: is it one?") from None
