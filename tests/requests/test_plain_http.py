"""HTTP/1.0 and HEAD, on a real socket."""

import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.fake_vllm import MODEL, FakeVllm


def exchange(url: str, request: str) -> tuple[dict[str, str], bytes]:
    """The headers and the body of what a server answers before it closes the connection."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return {"status": lines[0], **dict(line.lower().split(": ", 1) for line in lines[1:])}, body


@pytest.mark.parametrize("kinetics", ["", ', "kinetics": {"budget": {"samples": 1}}'])
def test_an_answer_to_http_1_0_has_its_length_and_no_chunks(url: str, vllm: FakeVllm, kinetics: str) -> None:
    content = f'{{"model": "{MODEL}", "prompt": "hi"{kinetics}}}'
    head = f"POST /v1/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    headers, body = exchange(url, head + content)
    assert " 200 " in headers["status"]
    assert "transfer-encoding" not in headers
    assert int(headers["content-length"]) == len(body)
    assert body.startswith(b"{")


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/v1/models", "/docs", "/openapi.json"])
def test_head_is_answered_as_get_is_without_the_body(url: str, path: str) -> None:
    got, head = httpx.get(url + path), httpx.head(url + path)
    assert head.status_code == got.status_code == 200
    assert head.headers["content-type"] == got.headers["content-type"]
    assert int(head.headers["content-length"]) > 0
    assert head.content == b""


def test_head_of_what_has_no_get_is_refused(url: str) -> None:
    assert httpx.head(f"{url}/v1/chat/completions").status_code == 405


def test_the_interactive_documents_come_from_here(url: str) -> None:
    page = httpx.get(f"{url}/docs").text
    assert "http://" not in page
    assert "https://" not in page
    sources = [part.split('"')[0] for part in page.replace("href=", "src=").split('src="')[1:]]
    assert len(sources) >= 3
    for source in sources:
        assert httpx.get(url + source).status_code == 200
