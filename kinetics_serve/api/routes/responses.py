"""OpenAI's Responses API: with a budget, or as vLLM answers it."""

import time

from fastapi import APIRouter
from fastapi.responses import Response

from kinetics_serve.api.dependencies import JsonCall
from kinetics_serve.budgeted import serve
from kinetics_serve.budgeted.answer import Answer
from kinetics_serve.budgeted.streams import ResponseStream
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.passthrough import worst_case
from kinetics_serve.passthrough.dialects import Responses
from kinetics_serve.passthrough.forward import forward
from kinetics_serve.passthrough.metered import forward_metered
from kinetics_serve.passthrough.passage import Passage
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.disconnect import while_request_connected
from kinetics_serve.requests.responses.input import chat_body, effort_of
from kinetics_serve.requests.responses.output import ResponseOutput
from kinetics_serve.sources.completion import ChatCompletion

router = APIRouter()


@router.post("/v1/responses")
async def responses(call: JsonCall) -> Response:
    """OpenAI's responses, plus an optional `kinetics` object with a budget. Nothing is stored."""
    options = serve.stated_options(call, effort_of(call.body))
    if options is None:
        if call.tenant is None:
            work = forward(call, "/v1/responses", call.content, call.body)
        else:
            work = _metered(call, call.tenant)
        return await while_request_connected(call.request, work)

    def stream_of(answer: Answer) -> ResponseStream:
        return ResponseStream(answer, ResponseOutput(call.body, answer.model, int(time.time())))

    return await serve.respond(call, chat_body(call.body), options, ChatCompletion, stream_of)


async def _metered(call: Call, tenant: Tenant) -> Response:
    """Priced as the chat completion that it stands for."""
    passage = Passage(call, "/v1/responses", call.body)
    async with passage.deadline.awaiting_engine():
        tab = await worst_case.of_completion(passage.route, tenant, ChatCompletion, chat_body(call.body))
    # Another tenant could read what vLLM stores.
    body = call.body | {"store": False}
    if isinstance(items := body.get("input"), list):  # earlier reasoning is not counted, so not shown again either
        body["input"] = [item for item in items if item.get("type") != "reasoning"]
    return await forward_metered(passage, body, tab, Responses(body))
