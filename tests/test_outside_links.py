"""`make links`, against a server on this machine."""

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.outside_links import TRIES, main

ASKED: Counter[str] = Counter()
DONE = threading.Event()


class Pages(BaseHTTPRequestHandler):
    """/good, /moved to it, /gone, /hangs, and /late, which is there at the last try."""

    def do_GET(self) -> None:
        ASKED[self.path] += 1
        if self.path == "/hangs":
            DONE.wait()
            return
        there = self.path == "/good" or (self.path == "/late" and ASKED["/late"] == TRIES)
        self.send_response(200 if there else 302 if self.path == "/moved" else 404)
        if self.path == "/moved":
            self.send_header("location", "/good")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    DONE.clear()
    ASKED.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        DONE.set()
        server.shutdown()
        thread.join()
        server.server_close()


def document(folder: Path, *links: str) -> str:
    page = folder / "page.md"
    page.write_text("".join(f"see [it]({link})\n" for link in links))
    return str(page)


def test_links_that_lead_somewhere_are_no_mistake(
    site: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = document(tmp_path, f"{site}/good", f"{site}/moved", f"{site}/late", "elsewhere.md")
    assert main([page, "--timeout", "30"]) == 0
    assert capsys.readouterr().out == "3 links, 0 broken\n"


def test_what_is_gone_or_hangs_is_named_with_its_document(
    site: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = document(tmp_path, f"{site}/gone", f"{site}/hangs")
    assert main([page, "--timeout", "0.5"]) == 1
    gone, hangs, _ = capsys.readouterr().out.splitlines()
    assert gone == f"{site}/gone: 404, in {page}"
    assert hangs == f"{site}/hangs: no answer in 0.5 s, in {page}"
    assert ASKED["/hangs"] == TRIES
