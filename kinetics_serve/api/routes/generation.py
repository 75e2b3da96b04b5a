"""The routes that generate with a budget or without: chat completions, completions, responses."""

import time
from collections.abc import Callable
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from kinetics_serve.budgeted import serve
from kinetics_serve.budgeted.options import BUDGET_HEADER, KineticsOptions, options_of
from kinetics_serve.budgeted.streams import CompletionStream, ResponseStream
from kinetics_serve.engine.pool import AUTO_MODEL
from kinetics_serve.engine.upstream import Json
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.passthrough import metered
from kinetics_serve.passthrough.forward import forward
from kinetics_serve.requests import body as request_body
from kinetics_serve.requests.access import restricted, tenant_of
from kinetics_serve.requests.disconnect import while_request_connected
from kinetics_serve.requests.errors import invalid
from kinetics_serve.requests.responses import input as response_input
from kinetics_serve.requests.responses.output import ResponseOutput
from kinetics_serve.requests.services import Services
from kinetics_serve.sources.completion import ChatCompletion, Completion, TextCompletion

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completions, plus an optional `kinetics` object with a budget."""
    return await _complete(request, ChatCompletion)


@router.post("/v1/completions")
async def completions(request: Request) -> Response:
    """OpenAI's completions, plus an optional `kinetics` object with a budget."""
    return await _complete(request, TextCompletion)


@router.post("/v1/responses")
async def responses(request: Request) -> Response:
    """OpenAI's responses, plus an optional `kinetics` object with a budget. Nothing is stored."""
    asked = await _asked(request, response_input.effort_of)
    if asked.options is None:
        if asked.tenant is not None:
            work = metered.pass_response_through(request, asked.tenant, asked.body)
            return await while_request_connected(request, work)
        return await while_request_connected(request, _pass_through(request, asked, "/v1/responses"))
    job = await serve.job_of(request, response_input.chat_body(asked.body), asked.options, ChatCompletion)
    output = ResponseOutput(asked.body, job.model, int(time.time()))
    if job.prompt.stream:
        return await serve.answer_in_a_stream(request, job, asked.tenant, ResponseStream(job, output))
    await serve.run(request, job, asked.tenant)
    return JSONResponse(output.response(job.response()))


async def _complete(request: Request, completion: type[Completion]) -> Response:
    asked = await _asked(request, lambda body: body.get("reasoning_effort"))
    if asked.options is None:
        if asked.tenant is not None:
            work = metered.pass_through(request, asked.tenant, completion, asked.body)
            return await while_request_connected(request, work)
        return await while_request_connected(request, _pass_through(request, asked, completion.path))
    job = await serve.job_of(request, asked.body, asked.options, completion)
    if job.prompt.stream:
        return await serve.answer_in_a_stream(request, job, asked.tenant, CompletionStream(job))
    await serve.run(request, job, asked.tenant)
    return JSONResponse(job.response())


class _Asked(NamedTuple):
    """A request as it came. content: its body's bytes. options: None where it states no budget."""

    content: bytes
    body: Json
    tenant: Tenant | None
    options: KineticsOptions | None


async def _asked(request: Request, effort_of: Callable[[Json], object]) -> _Asked:
    services: Services = request.app.state.services
    content, body = await request_body.read_json(request, services.settings)
    tenant = tenant_of(request)
    if tenant is not None:
        body = restricted(body, tenant, services.pool.pick(None)[1].name)
    stated = {"kinetics": body.get("kinetics"), "reasoning_effort": effort_of(body)}
    options = options_of(stated, request.headers.get(BUDGET_HEADER), services.settings.efforts)
    if options is None and body.get("model") == AUTO_MODEL:
        raise invalid(f"{AUTO_MODEL} chooses by the budget: state one, or name a model", "kinetics.budget")
    return _Asked(content, body, tenant, options)


async def _pass_through(request: Request, asked: _Asked, path: str) -> Response:
    return await forward(request, path, asked.content, asked.body)
