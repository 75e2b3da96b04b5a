"""Whether a model's program does on tests what it should."""

from collections.abc import Iterable

from kinetics_serve.answers import sandbox
from kinetics_serve.answers.programs import returned, written
from kinetics_serve.answers.sandbox import Limits, ProgramFailed
from kinetics_serve.evaluation.tasks import ProgramTest

TIME_LIMIT_S = 6.0
"""Of CPU time for each test, LiveCodeBench's own; wall time may be WALL_FACTOR times as long on a busy machine."""

WALL_FACTOR = 3


def passes(program: str, tests: Iterable[ProgramTest], limits: Limits | None = None) -> bool:
    """Whether the program answers every test as expected. Stops at the first that it fails."""
    limits = limits or Limits(TIME_LIMIT_S, WALL_FACTOR * TIME_LIMIT_S)
    return all(_passes(program, test, limits) for test in tests)


def _passes(program: str, test: ProgramTest, limits: Limits) -> bool:
    try:
        said = sandbox.run(program, test.given, limits, test.function)
        if test.function:
            return returned(said) == returned(test.expected)
        return written(said) == written(test.expected)
    except (ProgramFailed, ValueError, RecursionError):
        return False
