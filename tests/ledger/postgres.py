"""A PostgreSQL of the tests' own, in a temporary directory."""

import glob
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import free_port

USER = "postgres"


def _program(name: str) -> str | None:
    """Debian keeps PostgreSQL's programs out of PATH."""
    return shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)


class Postgres:
    """A server in a folder of its own, which can be stopped and started again. certificate, key: it has TLS then."""

    def __init__(self, folder: Path, certificate: Path | None = None, key: Path | None = None) -> None:
        initdb, postgres = _program("initdb"), _program("postgres")
        if initdb is None or postgres is None:
            pytest.skip("no initdb here: install PostgreSQL (Debian: apt-get install postgresql)")
        self._user = USER if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        self._folder = folder
        if self._user is not None:
            shutil.chown(folder, self._user)
        data = folder / "data"
        create = [initdb, "-D", str(data), "-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(create, check=True, capture_output=True, user=self._user, cwd=folder)
        port = free_port()
        where = ["-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]
        self._serve = [postgres, *where, "-c", "fsync=off"]
        if certificate is not None and key is not None:
            for file in (certificate, key):
                copy = shutil.copy(file, data)
                os.chmod(copy, 0o600)
                shutil.chown(copy, self._user or os.geteuid())
            self._serve += ["-c", "ssl=on", "-c", f"ssl_cert_file={certificate.name}", "-c", f"ssl_key_file={key.name}"]
        self.url = f"postgresql://{USER}@127.0.0.1:{port}/postgres"
        self.start()

    def start(self) -> None:
        with (self._folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                self._serve, stdout=log, stderr=log, user=self._user, cwd=self._folder, start_new_session=True
            )

    def stop(self, at_once: bool = False) -> None:
        """Without waiting for clients. at_once: nor is anything written that has to be read again at the next start."""
        self.process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
        self.process.wait(120)

    def freeze(self, frozen: bool) -> None:
        """All of its processes stand still, or go on."""
        number = signal.SIGSTOP if frozen else signal.SIGCONT
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = status.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid or int(status.parent.name) == self.process.pid:
                os.kill(int(status.parent.name), number)


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a server that runs meanwhile. Skips the test where PostgreSQL is not installed."""
    folder = Path(tempfile.mkdtemp(prefix="kinetics-postgres-"))
    try:
        server = Postgres(folder)
        try:
            yield server.url
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
