"""Real processes: each test starts a small tree under a guardian and looks at what is left of it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

GUARDIAN = [sys.executable, "-m", "kinetics_serve.engine.embedded.guardian", "--"]
GUARDIANS = 2  # it and its witness: they have the command, so the marker, among their arguments

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is promised for SIGKILL needs Linux's prctl")


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[str]:
    """An argument that names this test's processes, so that it can find them all. Kills what a failure leaves."""
    name = f"marker={tmp_path}"
    yield name
    for pid in running(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def running(marker: str) -> set[int]:
    """The processes that have the marker among their arguments; the dead that nobody has buried have none."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if marker in (process / "cmdline").read_text(errors="replace").split("\0"):
                    found.add(int(process.name))
    return found


def until(count: int, marker: str, timeout_s: float = 15.0) -> int:
    """Waits until so many processes run, and returns how many do."""
    deadline = time.monotonic() + timeout_s
    while len(running(marker)) != count and time.monotonic() < deadline:
        time.sleep(0.02)
    return len(running(marker))


def sleeper(marker: str, prelude: str = "pass") -> list[str]:
    return [sys.executable, "-c", f"import signal, subprocess, sys, time; {prelude}; time.sleep(600)", marker]


def parent_of(command: list[str], marker: str, session: bool = False) -> list[str]:
    """A command that starts `command` and sleeps."""
    return sleeper(marker, f"subprocess.Popen({command!r}, start_new_session={session})")


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*GUARDIAN, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def end(guardian: subprocess.Popen[bytes]) -> int:
    """Lets go of its stdin and returns its exit status."""
    guardian.communicate(timeout=120)
    return guardian.returncode


def test_the_first_line_is_the_commands_pid_and_its_output_follows() -> None:
    guardian = start([sys.executable, "-c", "import os; print(os.getpid())"])
    assert guardian.stdout is not None
    first, second = guardian.stdout.read().split()
    assert first == second
    assert end(guardian) == 0


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_it_exits_with_the_commands_status(code: str, status: int) -> None:
    # stdin stays open: the command ends by itself
    guardian = start([sys.executable, "-c", code])
    assert guardian.wait(20) == status
    end(guardian)


def test_a_command_that_cannot_run_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert end(start(["/no/such/python"])) == 127
    assert "/no/such/python" in capfd.readouterr().err


def test_the_end_of_stdin_ends_the_whole_tree(marker: str) -> None:
    guardian = start(parent_of(sleeper(marker), marker))
    assert until(GUARDIANS + 2, marker) == GUARDIANS + 2
    assert end(guardian) == 128 + signal.SIGTERM
    assert running(marker) == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_whole_tree(marker: str, number: signal.Signals) -> None:
    guardian = start(parent_of(sleeper(marker), marker))
    assert until(GUARDIANS + 2, marker) == GUARDIANS + 2
    guardian.send_signal(number)
    guardian.wait(20)
    assert running(marker) == set()
    end(guardian)


def test_one_that_ignores_sigterm_is_killed(marker: str) -> None:
    stubborn = sleeper(marker, "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)")
    guardian = start(stubborn)
    assert guardian.stdout is not None
    guardian.stdout.readline()
    assert guardian.stdout.readline() == b"ready\n"
    assert end(guardian) == 128 + signal.SIGKILL
    assert running(marker) == set()


def test_a_grandchild_in_a_session_of_its_own_is_found(marker: str) -> None:
    guardian = start(parent_of(sleeper(marker), marker, session=True))
    assert until(GUARDIANS + 2, marker) == GUARDIANS + 2
    end(guardian)
    assert running(marker) == set()


def test_what_a_killed_command_leaves_behind_goes_too(marker: str) -> None:
    """As when the API server is killed: EngineCore was its child, in whatever session."""
    guardian = start(parent_of(sleeper(marker), marker, session=True))
    assert guardian.stdout is not None
    command = int(guardian.stdout.readline())
    assert until(GUARDIANS + 2, marker) == GUARDIANS + 2
    os.kill(command, signal.SIGKILL)
    assert guardian.wait(20) == 128 + signal.SIGKILL
    assert running(marker) == set()
    end(guardian)


def test_a_killed_parent_takes_the_tree_along(marker: str) -> None:
    tree = [*GUARDIAN, *parent_of(sleeper(marker), marker, session=True)]
    supervisor = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.Popen({tree!r}, stdin=subprocess.PIPE).wait()"]
    )
    assert until(GUARDIANS + 2, marker) == GUARDIANS + 2
    supervisor.kill()
    supervisor.wait()
    assert until(0, marker) == 0


def test_a_killed_parent_takes_the_tree_along_though_a_fork_of_it_holds_the_pipe(marker: str) -> None:
    tree = [*GUARDIAN, *sleeper(marker)]
    code = (
        f"import os, subprocess, time; child = subprocess.Popen({tree!r}, stdin=subprocess.PIPE)\n"
        "fork = os.fork()\n"
        "if fork: print(fork, flush=True)\n"
        "time.sleep(600)"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    fork = int(supervisor.stdout.readline())
    assert until(GUARDIANS + 1, marker) == GUARDIANS + 1
    supervisor.kill()
    supervisor.wait()
    try:
        assert until(0, marker) == 0
    finally:
        os.kill(fork, signal.SIGKILL)
        supervisor.stdout.close()


def test_a_killed_guardian_takes_the_command_along(marker: str) -> None:
    guardian = start(sleeper(marker))
    assert until(GUARDIANS + 1, marker) == GUARDIANS + 1
    guardian.kill()
    assert until(0, marker) == 0
    end(guardian)


def test_a_guardian_killed_together_with_its_parent_takes_the_grandchildren_along(marker: str) -> None:
    """EngineCore does not notice by itself that the API server was killed."""
    guardian = start(parent_of(sleeper(marker), marker))
    assert until(GUARDIANS + 2, marker) == GUARDIANS + 2
    guardian.kill()
    assert until(0, marker) == 0
    end(guardian)
