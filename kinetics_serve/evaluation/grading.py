"""Whether a trial's answer is right."""

import asyncio
import os

from kinetics_serve.answers.groups import Keys
from kinetics_serve.evaluation.programs import passes
from kinetics_serve.evaluation.tasks import Grader, Problem


class Grading:
    """Grades each answer of a problem once. keys: of answers, as a MathPool finds them."""

    def __init__(self, grader: Grader, keys: Keys) -> None:
        self._grader = grader
        self._keys = keys
        self._known: dict[tuple[str, str], bool] = {}
        self._programs = asyncio.Semaphore(os.cpu_count() or 1)

    async def correct(self, problem: Problem, answer: str) -> bool:
        key = problem.query, answer
        if key not in self._known:
            grade = self._passes_tests if self._grader == "tests" else self._equals_a_choice
            self._known[key] = await grade(problem, answer)
        return self._known[key]

    async def _equals_a_choice(self, problem: Problem, answer: str) -> bool:
        key = await self._keys.key(answer, "auto")
        return any([await self._keys.key(choice, "auto") == key for choice in problem.choices])

    async def _passes_tests(self, problem: Problem, program: str) -> bool:
        async with self._programs:
            return bool(problem.tests) and await asyncio.to_thread(passes, program, problem.tests)
