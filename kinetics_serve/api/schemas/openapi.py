"""The OpenAPI document: FastAPI's, with the bodies of requests and answers."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from kinetics_serve.api.routes import engine
from kinetics_serve.api.schemas import administration, answers, requests
from kinetics_serve.budgeted.stated_budget import BUDGET_HEADER, MAX_BUDGET

Json = dict[str, Any]

BODIES: dict[str, tuple[type[BaseModel], type[BaseModel] | None]] = {
    "/v1/chat/completions": (requests.ChatCompletionRequest, answers.CompletionAnswer),
    "/v1/completions": (requests.CompletionRequest, answers.CompletionAnswer),
    "/v1/responses": (requests.ResponsesRequest, answers.ResponseAnswer),
    "/v1/kinetics/plan": (requests.ChatCompletionRequest, answers.PlanAnswer),
    "/v1/messages": (requests.MessagesRequest, None),
    "/v1/kinetics/admin/tenants": (administration.TenantChange, administration.TenantAnswer),
    "/v1/kinetics/admin/keys": (administration.KeyRequest, administration.NewApiKey),
    **dict.fromkeys((*engine.NOTHING_GENERATED, *engine.ONE_FORWARD_PASS), (requests.PassedRequest, None)),
}
"""By path: what is sent, and what is answered where that is ours."""

ANSWERS: dict[str, type[BaseModel]] = {
    "/v1/models": answers.ModelList,
    "/v1/models/{name}": answers.ModelCard,
    "/v1/kinetics/frontier": answers.FrontierAnswer,
    "/v1/kinetics/usage": answers.UsageAnswer,
    "/v1/kinetics/admin/tenants": administration.AccountsAnswer,
    "/v1/kinetics/admin/usage": administration.SpendingAnswer,
    "/ready": answers.ReadyAnswer,
}
"""By path: what a GET is answered."""

DELETIONS: dict[str, type[BaseModel]] = {"/v1/kinetics/admin/keys/{id}": administration.ApiKey}
"""By path: what a DELETE is answered."""

BUDGETED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/kinetics/plan")

STREAMED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")

_BUDGET_HEADER: Json = {
    "name": BUDGET_HEADER,
    "in": "header",
    "required": False,
    "description": "A budget in eFLOPs, where kinetics states none.",
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_BUDGET},
    "example": 4e13,
}

_PLACE = "#/components/schemas/{model}"


def install(app: FastAPI) -> None:
    """Makes `/openapi.json` the whole document."""
    generate = app.openapi

    def complete() -> Json:
        if app.openapi_schema is None:
            _fill_in(generate())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]


def _fill_in(document: Json) -> None:
    pairs = BODIES.values()
    models: set[type[BaseModel]] = {model for pair in pairs for model in pair if model}
    models |= {requests.PassedFile, answers.ErrorAnswer, *ANSWERS.values(), *DELETIONS.values()}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=_PLACE)
    for definition in definitions["$defs"].values():
        for field in definition.get("properties", {}).values():
            _add_example(field)
    components = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own errors never leave here
        components.pop(unused, None)
    components |= definitions["$defs"]
    for path, (sent, answered) in BODIES.items():
        operation = document["paths"][path]["post"]
        operation["requestBody"] = _body("application/json", sent)
        if answered is not None:
            operation["responses"]["200"]["content"] = _content("application/json", answered)
        if path in BUDGETED:
            operation["parameters"] = [_BUDGET_HEADER]
        if path in STREAMED:
            content = operation["responses"]["200"].setdefault("content", {})
            content["text/event-stream"] = {"schema": {"type": "string"}}
    for method, described in (("get", ANSWERS), ("delete", DELETIONS)):
        for path, answered in described.items():
            document["paths"][path][method]["responses"]["200"]["content"] = _content("application/json", answered)
    document["paths"]["/metrics"]["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    for path in engine.AUDIO:
        document["paths"][path]["post"]["requestBody"] = _body("multipart/form-data", requests.PassedFile)
    error = _content("application/json", answers.ErrorAnswer)
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            operation["responses"]["4XX"] = {"description": "The request's fault", "content": error}
            operation["responses"]["5XX"] = {"description": "The server's or the engine's fault", "content": error}


def _add_example(field: Json) -> None:
    """A field that has no example of its own gets its default, or the first value that it may have."""
    if "examples" in field or "$ref" in field:
        return
    values = [field.get("default"), field.get("const"), *field.get("enum", ())]
    found = next((value for value in values if value is not None), None)
    if found is not None:
        field["examples"] = [found]


def _content(media_type: str, model: type[BaseModel]) -> Json:
    return {media_type: {"schema": {"$ref": _PLACE.format(model=model.__name__)}}}


def _body(media_type: str, model: type[BaseModel]) -> Json:
    return {"required": True, "content": _content(media_type, model)}
