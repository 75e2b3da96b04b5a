"""Whether a file is still the one that was opened: what is deleted can be written on, and is lost nevertheless."""

from pathlib import Path


class FileIdentity:
    """Of the file at `path`, once it was taken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken: tuple[int, int] | None = None

    def take(self) -> None:
        """Remembers the file that is there now."""
        self._taken = self._now()

    @property
    def same(self) -> bool:
        """No other file, and none at all, has come in its place. True where none was taken."""
        return self._taken is None or self._now() == self._taken

    def _now(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino
