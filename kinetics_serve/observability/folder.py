"""The folder of several workers' numbers, which stays as small as the number of those that live."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

KEPT = ("counter", "histogram")
"""What goes on counting when its process has ended. A gauge of ours is of the living alone."""

OF_THE_DEAD = "dead"
"""In the place of a process's number, in the names of the files that hold what ended ones had counted."""


@contextmanager
def unchanging(folder: str, *, changed: bool = False) -> Iterator[None]:
    """Inside, nobody else folds files; with `changed`, nobody reads any either."""
    with (Path(folder) / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if changed else fcntl.LOCK_SH)
        yield


def collector(folder: str) -> MultiProcessCollector:
    """Of all workers' numbers, to be read inside `unchanging`."""
    return MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]


def fold(pid: int, folder: str) -> None:
    """Adds what an ended worker had counted to what those before it had, and removes its files."""
    with unchanging(folder, changed=True):
        mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
        for kind in KEPT:
            file = Path(folder) / f"{kind}_{pid}.db"
            if not file.exists():
                continue
            sums = MmapedDict(str(file.with_name(f"{kind}_{OF_THE_DEAD}.db")))  # type: ignore[no-untyped-call]
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                sums.write_value(key, sums.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]
            sums.close()  # type: ignore[no-untyped-call]
            file.unlink()
