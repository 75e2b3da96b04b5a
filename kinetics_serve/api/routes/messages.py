"""Anthropic's Messages API, which has no budgets."""

from fastapi import APIRouter
from fastapi.responses import Response

from kinetics_serve.api.dependencies import JsonCall
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.passthrough import worst_case
from kinetics_serve.passthrough.dialects import Messages
from kinetics_serve.passthrough.forward import forward
from kinetics_serve.passthrough.metered import forward_metered
from kinetics_serve.passthrough.passage import Passage
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.disconnect import while_request_connected

router = APIRouter()


@router.post("/v1/messages")
async def messages(call: JsonCall) -> Response:
    """Anthropic's Messages API, as vLLM serves it."""
    if call.tenant is None:
        work = forward(call, "/v1/messages", call.content, call.body)
    else:
        work = _metered(call, call.tenant)
    return await while_request_connected(call.request, work)


async def _metered(call: Call, tenant: Tenant) -> Response:
    passage = Passage(call, "/v1/messages", call.body)
    async with passage.deadline.awaiting_engine():
        tab = await worst_case.of_message(passage.route, tenant, call.body)
    return await forward_metered(passage, call.body, tab, Messages(call.body))
