"""Whether a trial's answer is right."""

import asyncio
import os

from kinetics_serve.answers.equivalence import quickly_equal
from kinetics_serve.answers.groups import MathEqual
from kinetics_serve.evaluation.sandbox import passes
from kinetics_serve.evaluation.tasks import Grader, Problem


class Grading:
    """Grades each answer of a problem once. math_equal: decides what needs computer algebra, as MathPool.equal."""

    def __init__(self, grader: Grader, math_equal: MathEqual) -> None:
        self._grader = grader
        self._math_equal = math_equal
        self._known: dict[tuple[str, str], bool] = {}
        self._programs = asyncio.Semaphore(os.cpu_count() or 1)

    async def correct(self, problem: Problem, answer: str) -> bool:
        key = problem.query, answer
        if key not in self._known:
            grade = self._passes_tests if self._grader == "tests" else self._equals_a_choice
            self._known[key] = await grade(problem, answer)
        return self._known[key]

    async def _equals_a_choice(self, problem: Problem, answer: str) -> bool:
        for choice in problem.choices:
            equal = quickly_equal(answer, choice, "math")
            if equal or (equal is None and await self._math_equal(answer, choice)):
                return True
        return False

    async def _passes_tests(self, problem: Problem, program: str) -> bool:
        async with self._programs:
            return bool(problem.tests) and await asyncio.to_thread(passes, program, problem.tests)
