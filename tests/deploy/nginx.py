"""An nginx with our configuration, in front of front-ends of a test."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import free_port
from tests.test_architecture import ROOT

CONFIGURATION = ROOT / "deploy" / "nginx" / "kinetics-serve.conf"

AROUND = """
daemon off;
pid {folder}/pid;
error_log {folder}/log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/kinetics-serve.conf;
}}
"""
"""What a distribution's nginx.conf has around ours, in a folder of the test's own."""


def configuration(port: int, upstreams: list[str]) -> str:
    """Ours, with other addresses. upstreams: URLs of two front-ends."""
    text = CONFIGURATION.read_text()
    stated = re.findall(r"server (127\.0\.0\.1:\d+)", text)
    assert len(stated) == len(upstreams)
    for address, url in zip(stated, upstreams, strict=True):
        text = text.replace(address, url.removeprefix("http://"))
    listens = "listen 8000;"
    assert listens in text
    return text.replace(listens, f"listen 127.0.0.1:{port};")


@contextmanager
def running_nginx(upstreams: list[str]) -> Iterator[str]:
    """The URL of one that runs meanwhile. Skips the test where nginx is not installed."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")  # Debian keeps it out of a user's PATH
    if program is None:
        pytest.skip("no nginx here (Debian: apt-get install nginx)")
    folder = Path(tempfile.mkdtemp(prefix="kinetics-nginx-"))
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""  # who else could read the folder
    (folder / "kinetics-serve.conf").write_text(configuration(port, upstreams))
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, user=user))
    command = [program, "-e", f"{folder}/log", "-c", f"{folder}/nginx.conf"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
