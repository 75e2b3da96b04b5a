"""What else of vLLM's API is open to clients: this list and nothing more, passed through as it is.

Routes that steer the engine (`/sleep`, `/reset_prefix_cache`, `/v1/load_lora_adapter`, `/collective_rpc` and the like),
`/invocations`, which hides any of the others, and what disaggregated serving uses stay closed.
"""

import re

from fastapi import APIRouter, Request
from fastapi.responses import Response

from kinetics_serve.api.dependencies import AppServices, Asker, JsonCall
from kinetics_serve.passthrough.forward import forward
from kinetics_serve.requests import body as request_body
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.disconnect import while_request_connected
from kinetics_serve.requests.errors import ApiError

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


async def pass_json(call: JsonCall) -> Response:
    """Passed through to vLLM."""
    path = call.request.url.path
    content, body = call.content, call.body
    if call.tenant is not None:
        if path in NOTHING_GENERATED:
            body = {key: value for key, value in body.items() if key != "cache_salt"}
        content = request_body.dump(body)
    work = forward(call, path, content, body, runs_model=path not in NOTHING_GENERATED)
    return await while_request_connected(call.request, work)


async def pass_form(request: Request, services: AppServices, tenant: Asker) -> Response:
    """Passed through to vLLM. Not with a ledger, as what it costs can't be known beforehand."""
    path = request.url.path
    if tenant is not None:
        raise ApiError(
            403, "invalid_request", f"{path} is not available here: what it generates could not be held to a quota"
        )
    content = await request_body.read(request, services.settings)
    model = _FORM_MODEL.search(content)
    known = {"model": model[1].decode(errors="replace")} if model else {}
    call = Call(request, services, tenant, content, known)
    return await while_request_connected(request, forward(call, path, content, known))


for path in (*NOTHING_GENERATED, *ONE_FORWARD_PASS):
    router.add_api_route(path, pass_json, methods=["POST"])
for path in AUDIO:
    router.add_api_route(path, pass_form, methods=["POST"])
