"""The OpenAPI document: complete, and no request that it allows makes the server fail."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from kinetics_serve.api.app import create_app
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, FakeVllm
from tests.openapi_document import document_of, operations, undescribed


def test_every_body_is_described_and_every_field_has_an_example(url: str) -> None:
    document = document_of(url)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), path
            for parameter in operation.get("parameters", ()):
                assert "examples" in parameter["schema"] or "example" in parameter, f"{path}: {parameter['name']}"
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
    document = document_of(url)

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


def test_our_answers_have_no_field_that_the_document_lacks(url: str, vllm: FakeVllm) -> None:
    described = document_of(url)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 40}
    shared = {"budget": {"samples": 20}, "max_samples": 2, "include_samples": True}
    for name, more in (
        ("forced", {"strategy": "self_consistency", "answer": {"force_tokens": 16}}),
        ("scorer", {"strategy": "best_of_n", "scorer": {"kind": "judge"}}),
    ):
        asked = shared | more
        answer = httpx.post(f"{url}/v1/chat/completions", json=body | {"kinetics": asked})
        assert answer.status_code == 200, answer.text
        assert {"samples", name} <= answer.json()["kinetics"].keys()
        assert undescribed(described, "Bill", answer.json()["kinetics"]) == []
        for stated in ({}, {"kinetics": asked}):
            plan = httpx.post(f"{url}/v1/kinetics/plan", json=body | stated).json()
            assert undescribed(described, "PlanAnswer", plan) == []
    models = httpx.get(f"{url}/v1/models").json()
    assert {part for part in undescribed(described, "ModelList", models) if not part.startswith("ModelCard")} == set()
    assert undescribed(described, "ReadyAnswer", httpx.get(f"{url}/ready").json()) == []


# Not by schemathesis' own pytest plugin, which does not run under pytest 9.2.
OPERATIONS = operations(create_app(["http://127.0.0.1:9"], PAPER_B200))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_no_request_makes_the_server_fail(url: str, vllm: FakeVllm, operation: Any) -> None:
    @given(case=operation.as_strategy())
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def check(case: Any) -> None:
        answer = case.call(base_url=url, timeout=20)
        assert answer.status_code < 500, answer.text

    check()
