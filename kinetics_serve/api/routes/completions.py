"""Chat completions and completions: with a budget, or as vLLM answers them."""

from fastapi import APIRouter
from fastapi.responses import Response

from kinetics_serve.api.dependencies import JsonCall
from kinetics_serve.budgeted import serve
from kinetics_serve.budgeted.streams import CompletionStream
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.passthrough import worst_case
from kinetics_serve.passthrough.dialects import Completions
from kinetics_serve.passthrough.forward import forward
from kinetics_serve.passthrough.metered import forward_metered
from kinetics_serve.passthrough.passage import Passage
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.disconnect import while_request_connected
from kinetics_serve.requests.errors import invalid
from kinetics_serve.requests.fields import boolean
from kinetics_serve.sources.completion import ChatCompletion, Completion, TextCompletion

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat_completions(call: JsonCall) -> Response:
    """OpenAI's chat completions, plus an optional `kinetics` object with a budget."""
    return await _complete(call, ChatCompletion)


@router.post("/v1/completions")
async def completions(call: JsonCall) -> Response:
    """OpenAI's completions, plus an optional `kinetics` object with a budget."""
    return await _complete(call, TextCompletion)


async def _complete(call: Call, completion: type[Completion]) -> Response:
    options = serve.stated_options(call, call.body.get("reasoning_effort"))
    if options is None:
        if call.tenant is None:
            work = forward(call, completion.path, call.content, call.body)
        else:
            work = _metered(call, call.tenant, completion)
        return await while_request_connected(call.request, work)
    return await serve.respond(call, call.body, options, completion, CompletionStream)


async def _metered(call: Call, tenant: Tenant, completion: type[Completion]) -> Response:
    body = call.body
    passage = Passage(call, completion.path, body)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise invalid(f"stream_options must be an object, given: {options!r:.100}", "stream_options")
    async with passage.deadline.awaiting_engine():
        tab = await worst_case.of_completion(passage.route, tenant, completion, body)
    if boolean(body, "stream"):
        body = body | {"stream_options": options | {"include_usage": True, "continuous_usage_stats": True}}
    return await forward_metered(passage, body, tab, Completions(options, body))
