"""Runs a command and sees to it that nothing of it outlives the guardian's parent.

    python -m kinetics_serve.engine.embedded.guardian -- COMMAND…

vLLM is a tree of processes: the API server, its EngineCore, the workers. The guardian ends all of it

* when its stdin reaches the end: the parent holds the other end, so any death of the parent closes it;
* when it has got another parent, in case a process forked by the parent holds that end too;
* on SIGTERM, SIGINT or SIGHUP;
* when the command ends by itself, for what that leaves behind;
* when the guardian itself is killed, as far as the kernel and a second process can see to that.

The first line it prints is the command's process id; the command's own output follows. It exits with the
command's status, 128 + the signal's number when a signal ended that. It imports little, so that it starts in a
moment.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil

GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL: vLLM leaves in one or two unless it hangs."""

PARENT_POLL_S = 1.0
TREE_POLL_S = 0.05

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(argv: Sequence[str]) -> int:
    if len(argv) < 2 or argv[0] != "--":
        print("usage: python -m kinetics_serve.engine.embedded.guardian -- COMMAND…", file=sys.stderr)
        return 2
    return guard(argv[1:])


def guard(command: Sequence[str]) -> int:
    """Runs `command` until it ends or has to end, and returns its status. stdin is watched, not passed on."""
    parent = os.getppid()
    wakeup = _signals_as_bytes()
    # Grandchildren whose parent died become our children instead of init's, whatever their group or session.
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with(os.getpid())
        )
    except OSError as error:
        print(f"guardian: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    print(process.pid, flush=True)
    witness, goodbye = _start_witness(process.pid)

    statuses: dict[int, int] = {}
    while process.pid not in statuses and not _must_end(parent, wakeup):
        _reap(statuses)
    # What a command that ended by itself leaves behind has nothing to finish, and a restart waits for its end.
    signals = (signal.SIGKILL,) if process.pid in statuses else (signal.SIGTERM, signal.SIGKILL)
    _end_tree(statuses, signals, spared=witness)
    os.write(goodbye, b".")
    process.returncode = os.waitstatus_to_exitcode(statuses.get(process.pid, signal.SIGKILL))
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _signals_as_bytes() -> int:
    """A descriptor that yields a byte for each signal that concerns us, so that select() sees signals too."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return read


def _must_end(parent: int, wakeup: int) -> bool:
    """Waits for a signal, for stdin or for a moment; true if the command has to end."""
    readable, _, _ = select.select([sys.stdin.fileno(), wakeup], [], [], PARENT_POLL_S)
    if wakeup in readable and set(os.read(wakeup, 4096)) - {signal.SIGCHLD}:
        return True
    if sys.stdin.fileno() in readable and not os.read(sys.stdin.fileno(), 4096):
        return True
    return os.getppid() != parent


def _reap(statuses: dict[int, int]) -> None:
    """Collects the status of every child that has ended, adopted ones included."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        statuses[pid] = status


def _end_tree(statuses: dict[int, int], signals: tuple[int, ...], spared: int) -> None:
    """Each signal in turn to every process of the tree but one, while some are still there, GRACE_S apart."""
    for number in signals:
        deadline = time.monotonic() + GRACE_S
        told: set[int] = set()
        while time.monotonic() < deadline:
            _reap(statuses)
            living = _tree() - {spared}
            if not living:
                return
            for pid in living - told:
                _send(pid, number)
            told |= living
            time.sleep(TREE_POLL_S)


def _tree() -> set[int]:
    """The ids of our living descendants."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended meanwhile
        os.kill(pid, number)


def _start_witness(group: int) -> tuple[int, int]:
    """Forks a process that kills the process group should we be killed. Returns its pid, and the pipe to dismiss it.

    The kernel kills the command with us, but not what that has started: EngineCore outlives a killed API server.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(read)
        return pid, write
    try:
        os.setsid()
        os.close(write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):  # our reader waits for the end of the output
            os.dup2(null, standard)
        if not os.read(read, 1):
            os.killpg(group, signal.SIGKILL)
    finally:
        os._exit(0)


def _die_with(guardian: int) -> Callable[[], None]:
    """What the command does before exec: asks the kernel to kill it should the guardian be killed."""

    def before_exec() -> None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:  # it died between our fork and that request
            os.kill(os.getpid(), signal.SIGKILL)

    return before_exec


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the process group and stdin have to do."""
    if _libc is not None:
        _libc.prctl(option, value, 0, 0, 0)


# Loaded here: after a fork, before exec, is no place for an import.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
