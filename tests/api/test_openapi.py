"""The OpenAPI document: complete, and no request that it allows makes the server fail."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from kinetics_serve.api.app import create_app
from tests.fake_vllm import FakeVllm


def test_every_body_is_described_and_every_field_has_an_example(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), path
            if method == "post":
                (content,) = operation["requestBody"]["content"].values()
                assert (
                    content["schema"]["$ref"].removeprefix("#/components/schemas/") in document["components"]["schemas"]
                )
    for name, schema in document["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            nested = "$ref" in str(described)  # whose own fields have examples
            assert nested or described.get("examples"), f"{name}.{field}"


def test_the_examples_are_requests_that_work(url: str, vllm: FakeVllm) -> None:
    document = httpx.get(f"{url}/openapi.json").json()

    def example(name: str) -> dict[str, Any]:
        schema = document["components"]["schemas"][name]
        return {field: schema["properties"][field]["examples"][0] for field in schema["required"]}

    for path, name in (("chat/completions", "ChatCompletionRequest"), ("responses", "ResponsesRequest")):
        for more in (
            {},
            {"kinetics": document["components"]["schemas"][name]["properties"]["kinetics"]["examples"][0]},
        ):
            answer = httpx.post(f"{url}/v1/{path}", json={"model": "fake"} | example(name) | more)
            assert answer.status_code == 200, answer.text


# Not by schemathesis' own pytest plugin, which does not run under pytest 9.2.
OPERATIONS = [
    result.ok()
    for result in schemathesis.openapi.from_dict(create_app(["http://127.0.0.1:9"], 1.0).openapi()).get_all_operations()
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_no_request_makes_the_server_fail(url: str, vllm: FakeVllm, operation: Any) -> None:
    @given(case=operation.as_strategy())
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def check(case: Any) -> None:
        answer = case.call(base_url=url, timeout=20)
        assert answer.status_code < 500, answer.text

    check()
