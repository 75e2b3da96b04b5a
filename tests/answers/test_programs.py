"""Programs as answers: where they stand, and when two of them do the same."""

import asyncio
import time

import pytest

from kinetics_serve.answers.behaviour import ProgramKeys, ProgramRunner, Trials, behaviour
from kinetics_serve.answers.no_vote import HasNoVote
from kinetics_serve.answers.programs import code, returned, written

NUMBERS = Trials(("1 2\n", "10 20 30\n"), "", 1.0)
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
    two = Trials(("a", "b"), "", 1.0)
    assert behaviour("print({'a': 1, 'b': 2}[input()])", two) != behaviour("print({'a': 2, 'b': 1}[input()])", two)


def test_a_function_is_called_with_its_arguments() -> None:
    trials = Trials(("1\n2", "[1]\n[2]"), "add", 1.0)
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
        behaviour(program, NUMBERS)


async def test_programs_run_while_the_event_loop_goes_on_and_each_runs_once() -> None:
    runner = ProgramRunner()
    keys = ProgramKeys(runner, Trials(("",), "", 1.0))
    slow = "import time; time.sleep(0.5); print(1)"
    try:
        started = time.monotonic()
        asked = [asyncio.create_task(keys.key(slow, "exact")) for _ in range(8)]
        longest = 0.0
        while not all(task.done() for task in asked):
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)
        assert len({task.result() for task in asked}) == 1
        assert time.monotonic() - started < 3.5  # eight runs would take longer
        assert longest < 0.4
    finally:
        runner.close()


async def test_what_nobody_waits_for_ends_before_its_next_input() -> None:
    runner = ProgramRunner()
    try:
        many = Trials(("",) * 32, "", 1.0)
        waiting = asyncio.create_task(runner.behaviour("import time; time.sleep(0.5)", many))
        await asyncio.sleep(0.2)
        waiting.cancel()
        started = time.monotonic()
        await asyncio.gather(*[runner.behaviour(SUM, NUMBERS) for _ in range(2)])
        assert time.monotonic() - started < 8  # 32 inputs would take sixteen seconds
    finally:
        runner.close()
