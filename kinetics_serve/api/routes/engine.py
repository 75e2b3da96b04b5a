"""What else of vLLM's API is open to clients: this list and nothing more, passed through as it is.

Routes that steer the engine (`/sleep`, `/reset_prefix_cache`, `/v1/load_lora_adapter`, `/collective_rpc` and the like),
`/invocations`, which hides any of the others, and what disaggregated serving uses stay closed.
"""

import re

from fastapi import APIRouter, Request
from fastapi.responses import Response

from kinetics_serve.passthrough import metered
from kinetics_serve.passthrough.forward import forward
from kinetics_serve.requests import body as request_body
from kinetics_serve.requests.access import restricted, tenant_of
from kinetics_serve.requests.disconnect import while_request_connected
from kinetics_serve.requests.errors import ApiError
from kinetics_serve.requests.services import Services

router = APIRouter()

NOTHING_GENERATED = (
    "/tokenize",
    "/detokenize",
    "/v1/messages/count_tokens",
    "/v1/chat/completions/render",
    "/v1/completions/render",
)
"""Text in, tokens out or the reverse: the model is not run."""

ONE_FORWARD_PASS = (
    "/v1/embeddings",
    "/v2/embed",
    "/pooling",
    "/classify",
    "/score",
    "/v1/score",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
)
"""Models that answer with numbers. Nothing is generated, so nothing is booked."""

AUDIO = ("/v1/audio/transcriptions", "/v1/audio/translations")
"""What these generate can't be bounded beforehand."""

_FORM_MODEL = re.compile(rb'name="?model"?\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)\r\n', re.IGNORECASE)


async def pass_json(request: Request) -> Response:
    """Passed through to vLLM."""
    services: Services = request.app.state.services
    path = request.url.path
    content, body = await request_body.read_json(request, services.settings)
    tenant = tenant_of(request)
    if tenant is not None:
        body = restricted(body, tenant, services.pool.pick(None)[1].name)
        if path in NOTHING_GENERATED:
            body.pop("cache_salt")
        content = request_body.dump(body)
    work = forward(request, path, content, body, runs_model=path not in NOTHING_GENERATED)
    return await while_request_connected(request, work)


async def pass_form(request: Request) -> Response:
    """Passed through to vLLM. Not with a ledger, as what it costs can't be known beforehand."""
    services: Services = request.app.state.services
    path = request.url.path
    if tenant_of(request) is not None:
        raise ApiError(
            403, "invalid_request", f"{path} is not available here: what it generates could not be held to a quota"
        )
    content = await request_body.read(request, services.settings)
    model = _FORM_MODEL.search(content)
    known = {"model": model[1].decode(errors="replace")} if model else {}
    return await while_request_connected(request, forward(request, path, content, known))


@router.post("/v1/messages")
async def messages(request: Request) -> Response:
    """Anthropic's Messages API, as vLLM serves it."""
    services: Services = request.app.state.services
    content, body = await request_body.read_json(request, services.settings)
    tenant = tenant_of(request)
    if tenant is not None:
        body = restricted(body, tenant, services.pool.pick(None)[1].name)
        return await while_request_connected(request, metered.pass_message_through(request, tenant, body))
    return await while_request_connected(request, forward(request, "/v1/messages", content, body))


for path in (*NOTHING_GENERATED, *ONE_FORWARD_PASS):
    router.add_api_route(path, pass_json, methods=["POST"])
for path in AUDIO:
    router.add_api_route(path, pass_form, methods=["POST"])
