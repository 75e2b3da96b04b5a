"""Runs a model's program on tests: in a process group of its own, with limits on time, memory, output and files.

What this holds off is accidents: endless loops, memory, forks left behind. It is no wall against a program that means
harm, which can still read files and open connections. Run such evaluations in a container.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from pathlib import Path

from kinetics_serve.evaluation.tasks import ProgramTest

TIME_LIMIT_S = 6.0
"""Of CPU time for each test, LiveCodeBench's own; wall time may be WALL_FACTOR times as long on a busy machine."""

WALL_FACTOR = 3
MEMORY_LIMIT_BYTES = 1 << 30
OUTPUT_LIMIT_BYTES = 16 << 20

_LAUNCH = """
import resource, runpy, sys
seconds, memory, output = map(int, sys.argv[1:4])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
sys.argv = sys.argv[4:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

_CALL = """
if __name__ == "__main__":
    import json as _json, sys as _sys
    _given = [_json.loads(_line) for _line in _sys.stdin.read().splitlines() if _line.strip()]
    _target = Solution() if "Solution" in globals() else _sys.modules["__main__"]
    _function = getattr(_target, {name!r}, None) or globals()[{name!r}]
    print(_json.dumps(_function(*_given)))
"""


def passes(
    program: str,
    tests: Iterable[ProgramTest],
    time_limit_s: float = TIME_LIMIT_S,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> bool:
    """Whether the program answers every test as expected. Stops at the first that it fails."""
    with tempfile.TemporaryDirectory(prefix="kinetics-sandbox-") as folder:
        return all(_passes(program, test, Path(folder), time_limit_s, memory_limit_bytes) for test in tests)


def _passes(program: str, test: ProgramTest, folder: Path, time_limit_s: float, memory_limit_bytes: int) -> bool:
    source = folder / "program.py"
    source.write_text(program + (_CALL.format(name=test.function) if test.function else ""), encoding="utf-8")
    limits = [str(max(1, round(time_limit_s))), str(memory_limit_bytes), str(OUTPUT_LIMIT_BYTES)]
    given, written = folder / "stdin", folder / "stdout"
    given.write_text(test.given, encoding="utf-8")
    with given.open("rb") as stdin, written.open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", _LAUNCH, *limits, str(source)],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            ended_well = process.wait(time_limit_s * WALL_FACTOR) == 0
        except subprocess.TimeoutExpired:
            ended_well = False
        finally:
            _kill_group(process.pid)
            process.wait()
    if not ended_well:
        return False
    said = written.read_text(encoding="utf-8", errors="replace")
    return _same_value(said, test.expected) if test.function else _same_output(said, test.expected)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):  # nothing of it is left
        os.killpg(group, signal.SIGKILL)


def _same_value(said: str, expected: str) -> bool:
    try:
        lines = said.strip().splitlines()
        return bool(lines and json.loads(lines[-1]) == json.loads(expected))
    except ValueError:
        return False


def _same_output(said: str, expected: str) -> bool:
    """Line by line, spaces at the ends ignored; numbers by their values."""
    ours, theirs = said.strip().splitlines(), expected.strip().splitlines()
    return len(ours) == len(theirs) and all(
        a.strip() == b.strip() or _same_numbers(a, b) for a, b in zip(ours, theirs, strict=True)
    )


def _same_numbers(a: str, b: str) -> bool:
    try:
        return [Decimal(word) for word in a.split()] == [Decimal(word) for word in b.split()]
    except InvalidOperation:
        return False
