"""No URL of a client's is fetched unless its host was allowed."""

import json
from typing import Any

import httpx
import pytest

from kinetics_serve.requests.errors import ApiError
from kinetics_serve.requests.media import check_media, media_host
from tests.fake_vllm import MODEL, FakeVllm

ALLOWED = frozenset({"media.example.com"})
INSIDE = "http://169.254.169.254/latest/meta-data"


def chat(part: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}]}


def check(body: dict[str, Any], hosts: frozenset[str] = frozenset()) -> None:
    check_media(body, json.dumps(body).encode(), hosts)


WAYS_TO_NAME_A_URL = [
    chat({"type": "image_url", "image_url": {"url": INSIDE}}),
    chat({"type": "image_url", "image_url": INSIDE}),
    chat({"image_url": INSIDE}),
    chat({"uuid": "x", "video_url": {"url": INSIDE}}),
    chat({"type": "audio_url", "audio_url": {"url": INSIDE}}),
    chat({"type": "image", "source": {"type": "url", "url": INSIDE}}),
    chat({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": INSIDE}}]}),
    {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": INSIDE}]}]},
    {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": INSIDE}]}]},
    {"type": "tool_use", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": INSIDE}]}]},
    {"images": [INSIDE]},
    {"documents": {"content": [{"type": "image_url", "image_url": {"url": INSIDE}}]}},
]


@pytest.mark.parametrize("body", WAYS_TO_NAME_A_URL, ids=str)
def test_wherever_a_url_stands_it_is_found(body: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match=r"169\.254\.169\.254.*data: URL"):
        check(body, ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://media.example.com/a.png",
        "//media.example.com/a.png",
        "/etc/passwd",
        "http://media.example.com@evil.example/a.png",
        "http://evil.example\\@media.example.com/a.png",
        "http://media.example.com.evil.example/a.png",
        "http://[media.example.com/a.png",
        " http://media.example.com/a.png",
        "http://media.example.com\n.evil.example/",
        "http://MEDIA.example.com:bad@x/",
        "",
    ],
)
def test_what_is_no_plain_url_to_an_allowed_host_is_refused(url: str) -> None:
    with pytest.raises(ApiError):
        check(chat({"type": "image_url", "image_url": {"url": url}}), ALLOWED)


@pytest.mark.parametrize(
    "body",
    [
        chat({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
        chat({"type": "image_url", "image_url": {"url": "https://media.example.com:8443/a.png?x=1"}}),
        chat({"type": "image_url", "image_url": {"url": "HTTPS://Media.Example.com/a.png"}}),
        chat({"type": "text", "text": f"what is at {INSIDE}?"}),
        chat({"type": "tool_use", "name": "open", "input": {"image_url": INSIDE}}),
        {"messages": [{"role": "user", "content": f'{{"image_url": "{INSIDE}"}}'}]},
        {"tools": [{"function": {"parameters": {"properties": {"image_url": {"default": INSIDE}}}}}]},
        {"documents": [{"source": INSIDE, "text": "a page"}]},
    ],
    ids=str,
)
def test_what_is_not_fetched_or_allowed_passes(body: dict[str, Any]) -> None:
    check(body, ALLOWED)


def test_an_escaped_field_is_the_field() -> None:
    content = b'{"messages": [{"content": [{"image\\u005f\\u0075rl": "http://10.0.0.1/"}]}]}'
    with pytest.raises(ApiError):
        check_media(json.loads(content), content, frozenset())


@pytest.mark.parametrize("field", ["kv_transfer_params", "ec_transfer_params"])
def test_clients_do_not_tell_the_engine_where_to_connect_to(field: str) -> None:
    with pytest.raises(ApiError, match=field):
        check({"model": MODEL, field: {"remote_host": "10.0.0.1"}})


@pytest.mark.parametrize("stated", ["http://media.example.com", "media.example.com:80", "a/b", "", "x@y"])
def test_a_host_is_stated_as_a_name(stated: str) -> None:
    with pytest.raises(ValueError, match="name of a host"):
        media_host(stated)


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/tokenize", "/v1/messages", "/pooling"]
)
def test_no_route_lets_one_through(url: str, vllm: FakeVllm, path: str) -> None:
    answer = httpx.post(url + path, json=chat({"type": "image_url", "image_url": {"url": INSIDE}}))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages.0.content.1.image_url.url"
    assert vllm.requests == []
