"""The container that we run in, if any: its limits don't show in what the machine says of itself."""

import os
from contextlib import suppress
from pathlib import Path

MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Of control groups in versions 2 and 1."""


def memory_bytes() -> int:
    """What all of our processes may have together: the container's, or the machine's."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(memory_limit_bytes() or machine, machine)


def memory_limit_bytes() -> int | None:
    """The memory that all of its processes may have together; None where nothing limits it.

    Version 1 says "no limit" by a number that no machine has.
    """
    for path in MEMORY_LIMITS:
        with suppress(OSError, ValueError):
            return int(path.read_text(encoding="ascii"))
    return None
