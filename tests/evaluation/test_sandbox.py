import os
import time
from pathlib import Path

import pytest

from kinetics_serve.evaluation.sandbox import passes
from kinetics_serve.evaluation.tasks import ProgramTest

SUM = "print(sum(map(int, input().split())))"


def test_a_right_program_passes_and_a_wrong_one_fails() -> None:
    tests = [ProgramTest("1 2\n", "3\n"), ProgramTest("10 20 30\n", "60")]
    assert passes(SUM, tests)
    assert not passes("print(3)", tests)
    assert not passes("raise SystemExit(1)", tests)
    assert not passes("not python", tests)


def test_numbers_are_compared_by_value_and_spaces_at_the_ends_ignored() -> None:
    assert passes("print('  1.50 2 ')", [ProgramTest("", "1.5 2.0\n")])
    assert not passes("print('1.5')\nprint(2)", [ProgramTest("", "1.5 2\n")])


@pytest.mark.parametrize(
    "program", ["def add(a, b):\n    return a + b", "class Solution:\n    def add(self, a, b):\n        return a + b"]
)
def test_a_function_is_called_with_the_values_on_its_lines(program: str) -> None:
    assert passes(program, [ProgramTest("[1]\n[2]", "[1, 2]", "add"), ProgramTest("3\n4", "7", "add")])
    assert not passes(program, [ProgramTest("3\n4", "8", "add")])


def test_an_endless_loop_is_ended() -> None:
    started = time.monotonic()
    assert not passes("while True: pass", [ProgramTest("", "")], time_limit_s=1)
    assert not passes("import time; time.sleep(60)", [ProgramTest("", "")], time_limit_s=1)
    assert time.monotonic() - started < 15


def test_memory_and_output_have_a_limit() -> None:
    assert not passes("x = bytearray(2 << 30); print('ok')", [ProgramTest("", "ok")])
    assert passes("x = bytearray(1 << 20); print('ok')", [ProgramTest("", "ok")])
    assert not passes("print('x' * (64 << 20))\nprint('ok')", [ProgramTest("", "ok")])


def test_what_a_program_leaves_running_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = f"""
import os, time
if os.fork() == 0:
    open({str(pid_file)!r}, "w").write(str(os.getpid()))
    time.sleep(60)
else:
    while not os.path.exists({str(pid_file)!r}) or not open({str(pid_file)!r}).read(): time.sleep(0.01)
    print("ok")
"""
    assert passes(program, [ProgramTest("", "ok")])
    child = int(pid_file.read_text())
    for _ in range(100):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    os.kill(child, 9)
    pytest.fail("the child was left running")
