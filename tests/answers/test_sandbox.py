import os
import time
from pathlib import Path

import pytest

from kinetics_serve.answers.sandbox import Limits, ProgramFailed, ProgramTimedOut, run

PATIENT = Limits(cpu_s=20, wall_s=120)
"""For programs that end."""


def test_a_program_reads_stdin_and_writes_stdout() -> None:
    assert run("print(sum(map(int, input().split())))", "1 2\n", PATIENT) == "3\n"
    for broken in ("raise SystemExit(1)", "not python"):
        with pytest.raises(ProgramFailed, match="status"):
            run(broken, "", PATIENT)


@pytest.mark.parametrize(
    "program", ["def add(a, b):\n    return a + b", "class Solution:\n    def add(self, a, b):\n        return a + b"]
)
def test_a_function_is_called_with_the_values_on_its_lines(program: str) -> None:
    assert run(program, "[1]\n[2]", PATIENT, "add") == "[1, 2]\n"


def test_an_endless_loop_is_ended() -> None:
    started = time.monotonic()
    for endless, limits in (
        ("while True: pass", Limits(cpu_s=1, wall_s=600)),
        ("import time; time.sleep(600)", Limits(cpu_s=600, wall_s=0.5)),
    ):
        with pytest.raises(ProgramTimedOut):
            run(endless, "", limits)
    assert time.monotonic() - started < 300


def test_memory_and_output_have_a_limit() -> None:
    with pytest.raises(ProgramFailed):
        run("x = bytearray(2 << 30); print('ok')", "", PATIENT)
    assert run("x = bytearray(1 << 20); print('ok')", "", PATIENT) == "ok\n"
    with pytest.raises(ProgramFailed):
        run("print('x' * (64 << 20))\nprint('ok')", "", PATIENT)


def test_a_program_sees_nothing_of_the_servers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINETICS_UPSTREAM_API_KEY", "secret")
    assert "secret" not in run("import os; print(dict(os.environ))", "", PATIENT)


def test_nothing_of_a_program_is_left_for_the_next(tmp_path: Path) -> None:
    run("open('mine', 'w').write('x')", "", PATIENT)
    assert run("import os; print('mine' in os.listdir())", "", PATIENT) == "False\n"


def test_what_a_program_leaves_running_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = f"""
import os, time
if os.fork() == 0:
    open({str(pid_file)!r}, "w").write(str(os.getpid()))
    time.sleep(600)
else:
    while not os.path.exists({str(pid_file)!r}) or not open({str(pid_file)!r}).read(): time.sleep(0.01)
    print("ok")
"""
    assert run(program, "", PATIENT) == "ok\n"
    child = int(pid_file.read_text())
    for _ in range(3000):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    os.kill(child, 9)
    pytest.fail("the child was left running")
