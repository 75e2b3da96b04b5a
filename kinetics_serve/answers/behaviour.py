"""Programs vote by what they do: those that answer all of a client's inputs alike are one answer."""

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kinetics_serve.answers import programs, sandbox
from kinetics_serve.answers.equivalence import EquivalenceKind
from kinetics_serve.answers.no_vote import HasNoVote, NoVote
from kinetics_serve.answers.sandbox import Limits, ProgramFailed, ProgramTimedOut

PROGRAM_LIMIT_S = 30.0
"""Of one program on all inputs, on the clock."""

WALL_FACTOR = 3
"""A busy machine may give a program its processor time so many times slower."""

MEMORY_BYTES = 512 << 20
OUTPUT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Trials:
    """What programs are tried on. inputs: each for stdin, or with `function` its arguments as lines of JSON. cpu_s:
    seconds of processor time for each input.
    """

    inputs: tuple[str, ...]
    function: str
    cpu_s: float


class ProgramRunner:
    """Runs the programs of all requests, on half of the processors at most, in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2), thread_name_prefix="programs")

    async def behaviour(self, program: str, trials: Trials) -> str:
        """See the function. What nobody waits for any more ends before its next input."""
        given_up = [False]
        try:
            return await asyncio.wrap_future(self._threads.submit(behaviour, program, trials, given_up))
        except asyncio.CancelledError:
            given_up[0] = True
            raise

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class ProgramKeys:
    """The keys of one request's programs: the same for those that do the same. One of them runs at a time, so that no
    request keeps others from their turn.
    """

    def __init__(self, runner: ProgramRunner, trials: Trials) -> None:
        self._runner = runner
        self._trials = trials
        self._turn = asyncio.Lock()
        self._known: dict[str, str | HasNoVote] = {}

    async def key(self, answer: str, kind: EquivalenceKind) -> str:
        """Raises HasNoVote for a program that fails or takes too long."""
        async with self._turn:
            if answer not in self._known:
                try:
                    self._known[answer] = f"code:{await self._runner.behaviour(answer, self._trials)}"
                except HasNoVote as error:
                    self._known[answer] = error
        known = self._known[answer]
        if isinstance(known, HasNoVote):
            raise HasNoVote(known.reason)
        return known


def behaviour(program: str, trials: Trials, given_up: Sequence[bool] = (False,)) -> str:
    """A digest of what the program answers to all inputs. Raises HasNoVote. Blocks. given_up: whether to stop early."""
    digest = hashlib.sha256()
    ends = time.monotonic() + PROGRAM_LIMIT_S
    for given in trials.inputs:
        remaining_s = ends - time.monotonic()
        if given_up[0] or remaining_s <= 0:
            raise HasNoVote(NoVote.PROGRAM_TIMED_OUT)
        limits = Limits(trials.cpu_s, min(WALL_FACTOR * trials.cpu_s, remaining_s), MEMORY_BYTES, OUTPUT_BYTES)
        try:
            output = sandbox.run(program, given, limits, trials.function)
            answer = programs.returned(output) if trials.function else "\n".join(programs.written(output))
        except ProgramTimedOut:
            raise HasNoVote(NoVote.PROGRAM_TIMED_OUT) from None
        except (ProgramFailed, ValueError, RecursionError):
            raise HasNoVote(NoVote.PROGRAM_FAILED) from None
        digest.update(hashlib.sha256(answer.encode(errors="replace")).digest())
    return digest.hexdigest()
