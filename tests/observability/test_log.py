"""Log lines, and the name that a request has in them."""

import json
import logging
import re
from pathlib import Path

import httpx
import pytest

from kinetics_serve.observability.log import JsonFormatter
from kinetics_serve.observability.request_id import request_id
from tests.fake_vllm import MODEL, FakeVllm
from tests.ledger.server import VOTE, front_end

SECRET = "the-launch-code-is-0000"
QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": SECRET}], "max_tokens": 20}


def test_a_line_is_one_json_object() -> None:
    record = logging.LogRecord("a.b", logging.INFO, "f", 1, "two\nlines of %s", ("text",), None)
    record.fields = {"status": 200}
    token = request_id.set("r-1")
    try:
        (line,) = JsonFormatter().format(record).splitlines()
    finally:
        request_id.reset(token)
    read = json.loads(line)
    assert read.pop("time").endswith("+00:00")
    assert read == {
        "level": "INFO", "logger": "a.b", "message": "two\nlines of text", "request_id": "r-1", "status": 200,
    }  # fmt: skip


def test_requests_are_logged_by_name_and_without_their_content(vllm: FakeVllm, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with front_end(vllm, str(tmp_path / "ledger.db"), tmp_path, log, "--log-format", "json") as server:
        key = server.key("logged")
        headers = {"authorization": f"Bearer {key}", "x-request-id": "mine-1"}
        for body in (QUESTION, QUESTION | {"kinetics": VOTE}, QUESTION | {"temperature": 9}, {"messages": SECRET}):
            url = f"{server.url}/v1/chat/completions?q={SECRET}"
            assert httpx.post(url, json=body, headers=headers).headers["x-request-id"] == "mine-1"
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    accesses = [line for line in lines if line["logger"] == "kinetics_serve.access" and line["method"] == "POST"]
    assert [line["status"] for line in accesses] == [200, 200, 400, 400]
    for line in accesses:
        assert (line["request_id"], line["tenant"], line["path"]) == ("mine-1", "logged", "/v1/chat/completions")
    assert SECRET not in log.read_text()
    assert key not in log.read_text()


@pytest.mark.parametrize("stated", ["", "a b", "x" * 65, "näh", "a/b", '{"a":1}'])
def test_a_name_that_is_no_sane_one_is_replaced(url: str, stated: str) -> None:
    headers = [(b"x-request-id", stated.encode())]
    named = httpx.get(f"{url}/health", headers=headers).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", named)


def test_the_engine_gets_the_name_too(url: str, vllm: FakeVllm) -> None:
    headers = {"x-request-id": "mine-2"}
    httpx.post(f"{url}/v1/chat/completions", json=QUESTION, headers=headers)
    assert vllm.request_ids[-1] == "mine-2"
    vllm.request_ids.clear()
    httpx.post(f"{url}/v1/chat/completions", json=QUESTION | {"kinetics": VOTE}, headers=headers)
    samples = [name for name in vllm.request_ids if name != "mine-2"]  # the prompt is counted under the plain name
    assert len(samples) >= 2
    assert set(samples) == {f"mine-2-{number}" for number in range(len(samples))}
