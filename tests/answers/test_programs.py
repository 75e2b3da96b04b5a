"""Programs as answers: where they stand, and when two of them do the same."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from kinetics_serve.answers.behaviour import ProgramKeys, ProgramRunner, Trials, behaviour
from kinetics_serve.answers.no_vote import HasNoVote
from kinetics_serve.answers.programs import code, returned, written

NUMBERS = Trials(("1 2\n", "10 20 30\n"), "", 10.0)
BRIEFLY = replace(NUMBERS, cpu_s=1.0)
SUM = "print(sum(map(int, input().split())))"
LOOP = "t = 0\nfor word in input().split():\n    t += float(word)\nprint(t)"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nprint(1)\n```", "print(1)"),
        ("```py\nprint(1)\n```\nIt prints\n```\n1\n```", "print(1)"),
        ("```\nprint(1)\n```\n", "print(1)"),
        ("```python\nprint(1)\n```\nBetter:\n```python3 title=x\nprint(2)\n```", "print(2)"),
        ("```python\nprint(1)", "print(1)"),
        ("no code", None),
        ("```python\n```", None),
    ],
)
def test_the_last_block_of_python_is_the_program(text: str, program: str | None) -> None:
    assert code(text) == program


def test_numbers_are_the_same_by_their_values_and_lines_without_the_spaces_at_their_ends() -> None:
    assert written("  1.50 2 \n\n") == written("1.5 2.0")
    assert written("1e3") == written("1000")
    assert written("-0") == written("0.0")
    assert written("a \nb") == written("a\nb\n")
    assert written("1.5\n2") != written("1.5 2")
    assert written("10") != written("1")
    assert written("nan") != written("NaN")
    assert written("1" * 40) != written("1" * 39 + "2")


def test_a_returned_value_is_the_last_line_as_json() -> None:
    assert returned('said\n{"b": 2.0, "a": 1}\n') == returned('{"a": 1, "b": 2}')
    assert returned("true") != returned("1")
    for nothing in ("", "None", "NaN"):
        with pytest.raises(ValueError, match=r"Expecting value|no JSON"):
            returned(nothing)


def test_programs_that_answer_alike_have_one_key() -> None:
    assert behaviour(SUM, NUMBERS) == behaviour(LOOP, NUMBERS)
    assert behaviour(SUM, NUMBERS) != behaviour("print(max(map(int, input().split())))", NUMBERS)


def test_outputs_count_each_for_its_input() -> None:
    two = Trials(("a", "b"), "", 10.0)
    assert behaviour("print({'a': 1, 'b': 2}[input()])", two) != behaviour("print({'a': 2, 'b': 1}[input()])", two)


def test_a_function_is_called_with_its_arguments() -> None:
    trials = Trials(("1\n2", "[1]\n[2]"), "add", 10.0)
    plain = "def add(a, b):\n    return a + b"
    assert behaviour(plain, trials) == behaviour(
        "class Solution:\n    def add(self, a, b):\n        print('adding')\n        return a + b", trials
    )
    for broken in ("def sub(a, b):\n    return a", "def add(a, b):\n    return {a}", "def add(a, b):\n    exit()"):
        with pytest.raises(HasNoVote, match="program_failed"):
            behaviour(broken, trials)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("not python", "program_failed"),
        ("raise SystemExit(1)", "program_failed"),
        ("print(int(input().split()[2]))", "program_failed"),
        ("print('x' * (2 << 20))", "program_failed"),
        ("x = bytearray(1 << 30)", "program_failed"),
        ("while True: pass", "program_timed_out"),
        ("import time; time.sleep(60)", "program_timed_out"),
    ],
)
def test_a_program_that_fails_or_does_not_end_has_no_vote_and_says_why(program: str, reason: str) -> None:
    with pytest.raises(HasNoVote, match=reason):
        behaviour(program, BRIEFLY if reason == "program_timed_out" else NUMBERS)


def waiting_for(folder: Path) -> str:
    """A program that leaves a file behind each time it runs, and ends when there is a file `go`."""
    return f"""
import os, tempfile, time
tempfile.mkstemp(dir={str(folder)!r}, prefix="run-")
while not os.path.exists({str(folder / "go")!r}): time.sleep(0.01)
print(1)
"""


def runs(folder: Path) -> int:
    return len(list(folder.glob("run-*")))


async def test_programs_run_while_the_event_loop_goes_on_and_each_runs_once(tmp_path: Path) -> None:
    runner = ProgramRunner()
    keys = ProgramKeys(runner, Trials(("",), "", 10.0))
    program = waiting_for(tmp_path)
    try:
        asked = [asyncio.create_task(keys.key(program, "exact")) for _ in range(8)]
        while not runs(tmp_path):
            await asyncio.sleep(0.01)
        (tmp_path / "go").touch()  # which it waits for
        assert len(set(await asyncio.gather(*asked))) == 1
        assert runs(tmp_path) == 1
    finally:
        runner.close()


async def test_what_nobody_waits_for_ends_before_its_next_input(tmp_path: Path) -> None:
    runner = ProgramRunner()
    try:
        waiting = asyncio.create_task(runner.behaviour(waiting_for(tmp_path), Trials(("",) * 32, "", 10.0)))
        while not runs(tmp_path):
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        (tmp_path / "go").touch()
        await asyncio.gather(*[runner.behaviour(SUM, NUMBERS) for _ in range(2)])
        await asyncio.to_thread(runner._threads.shutdown)  # where it had a thread to itself
        assert runs(tmp_path) == 1
    finally:
        runner.close()
