"""Runs a model's program: in a process group of its own, with limits on time, memory, output and files.

What this holds off is accidents: endless loops, memory, forks left behind. It is no wall against a program that means
harm, which can still read files and open connections. Run such programs in a container.
"""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class Limits:
    """cpu_s: seconds of processor time, in whole ones, of a process. wall_s: seconds until it is killed."""

    cpu_s: float
    wall_s: float
    memory_bytes: int = 1 << 30
    output_bytes: int = 16 << 20
    """Of what it says, and of each file that it writes."""


class ProgramFailed(Exception):
    """The program ended with an error. It may have said too much, or wanted more memory than there is for it."""


class ProgramTimedOut(ProgramFailed):
    """The program was ended by its limit of time."""


def run(program: str, given: str, limits: Limits, function: str = "") -> str:
    """What a Python program writes to stdout where `given` is its stdin. Blocks until it has ended.

    function: what to call with the JSON values on the lines of `given`; its value is the last line, as JSON. "" calls
    nothing. Raises ProgramFailed.
    """
    with tempfile.TemporaryDirectory(prefix="kinetics-sandbox-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        source, stdin, stdout = folder / "program.py", folder / "stdin", folder / "stdout"
        call = _CALL.format(name=function) if function else ""
        source.write_text(program + call, encoding="utf-8", errors="replace")
        stdin.write_text(given, encoding="utf-8", errors="replace")
        _run(source, stdin, stdout, limits)
        return stdout.read_text(encoding="utf-8", errors="replace")


def _run(source: Path, stdin: Path, stdout: Path, limits: Limits) -> None:
    numbers = [max(1, round(limits.cpu_s)), limits.memory_bytes, limits.output_bytes]
    with stdin.open("rb") as given, stdout.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", _LAUNCH, *map(str, numbers), str(source)],
            stdin=given,
            stdout=written,
            stderr=subprocess.DEVNULL,
            cwd=source.parent,
            env={"PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            status = process.wait(limits.wall_s)
        except subprocess.TimeoutExpired:
            raise ProgramTimedOut(f"not done within {limits.wall_s:g} s") from None
        finally:
            _kill_group(process.pid)
            process.wait()
    if status == -signal.SIGXCPU:
        raise ProgramTimedOut(f"not done within {numbers[0]} s of processor time")
    if status != 0:
        raise ProgramFailed(f"it ended with status {status}")


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):  # nothing of it is left
        os.killpg(group, signal.SIGKILL)
