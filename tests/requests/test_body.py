"""What is taken for a request's body."""

import json

import httpx
import pytest

from kinetics_serve.api.routes.engine import NOTHING_GENERATED, ONE_FORWARD_PASS
from kinetics_serve.requests.body import parse
from kinetics_serve.requests.errors import ApiError
from tests.fake_vllm import MODEL, FakeVllm

ROUTES = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/kinetics/plan",
    *NOTHING_GENERATED,
    *ONE_FORWARD_PASS,
]

BEYOND_A_DOUBLE = ["1e400", "-1e400", "1E+0400", "1.7976931348623159e308", f"{'9' * 250}e60", f"1{'0' * 400}.0"]


@pytest.mark.parametrize("number", BEYOND_A_DOUBLE)
@pytest.mark.parametrize("place", ['{"a": %s}', '{"a": [1, {"b": [%s]}]}', '{"text": "1e400", "a": %s}'])
def test_a_number_beyond_a_double_is_no_json(number: str, place: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse((place % number).encode())
    assert refused.value.status == 400
    assert "infinity" in str(refused.value)


@pytest.mark.parametrize(
    "body", [{"a": 1.7976931348623157e308}, {"a": 5e-324}, {"a": "1e400"}, {"a": [2**64, -(2**70)]}]
)
def test_what_a_double_or_a_whole_number_holds_is_taken_exactly(body: dict[str, object]) -> None:
    assert parse(json.dumps(body).encode()) == body


@pytest.mark.parametrize("path", ROUTES)
def test_infinity_is_refused_on_every_route_and_never_reaches_an_engine(url: str, vllm: FakeVllm, path: str) -> None:
    content = b'{"model": "%s", "input": "hi", "nested": [{"number": 1e400}]}' % MODEL.encode()
    response = httpx.post(url + path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_request"
    assert not vllm.requests
