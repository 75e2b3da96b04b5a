"""The clients that people use, as they come, in front of a real vLLM: with a budget and without, streaming and not."""

from typing import Any

import httpx
import litellm
import pytest
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI
from openai import OpenAI

from kinetics_serve.cost import DENSE, Architecture, AttentionLayers, Price
from kinetics_serve.passthrough.dialects import UNSHOWN_TOKENS, Dialect, Messages, Responses
from kinetics_serve.passthrough.events import Event
from kinetics_serve.passthrough.tab import Tab
from tests.e2e.conftest import MODEL, Server

QUESTION = "What is 7 times 8?"
CHAT: list[Any] = [{"role": "user", "content": QUESTION}]
PROMPT_TOKENS = 38
TOKENS = 8
KINETICS = {"budget": {"samples": 2}, "strategy": "best_of_n", "max_samples": 2}

budgets = pytest.mark.parametrize("kinetics", [None, KINETICS], ids=["plain", "budgeted"])


def extra(kinetics: dict[str, Any] | None) -> dict[str, Any]:
    return {} if kinetics is None else {"extra_body": {"kinetics": kinetics, "seed": 1}}


def temperature(kinetics: dict[str, Any] | None) -> float:
    return 0.0 if kinetics is None else 0.7


def most_tokens(kinetics: dict[str, Any] | None) -> int:
    return TOKENS if kinetics is None else 2 * TOKENS


@budgets
def test_litellm(server: Server, kinetics: dict[str, Any] | None) -> None:
    ask: dict[str, Any] = {
        "model": f"openai/{MODEL}",
        "messages": CHAT,
        "max_tokens": TOKENS,
        "temperature": temperature(kinetics),
        "api_base": f"{server.url}/v1",
        "api_key": "none",
        **extra(kinetics),
    }
    answer = litellm.completion(**ask)
    assert answer.choices[0].message.content.strip()
    assert 0 < answer.usage.completion_tokens <= most_tokens(kinetics)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**ask, stream=True))
    assert text.strip()
    if kinetics is None:  # the same greedy sample
        assert text == answer.choices[0].message.content


@budgets
@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
async def test_langchain(server: Server, kinetics: dict[str, Any] | None, responses: bool) -> None:
    model = ChatOpenAI(
        model=MODEL,
        base_url=f"{server.url}/v1",
        api_key="none",  # type: ignore[arg-type]
        max_completion_tokens=TOKENS,
        temperature=temperature(kinetics),
        use_responses_api=responses,
        **extra(kinetics),
    )
    answer = await model.ainvoke(QUESTION)
    assert answer.text.strip()
    assert answer.usage_metadata is not None
    assert 0 < answer.usage_metadata["output_tokens"] <= most_tokens(kinetics)
    whole = AIMessageChunk(content="")
    async for chunk in model.astream(QUESTION):
        assert isinstance(chunk, AIMessageChunk)
        whole += chunk
    assert whole.text.strip()
    if kinetics is None:
        assert whole.text == answer.text


def test_responses_without_a_budget_are_the_engines(server: Server) -> None:
    ask: dict[str, Any] = {"model": MODEL, "input": QUESTION, "max_output_tokens": TOKENS, "temperature": 0}
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        answer = client.responses.create(**ask)
        assert "kinetics" not in (answer.model_extra or {})
        assert answer.output_text.strip()
        assert answer.usage is not None
        assert answer.usage.output_tokens <= TOKENS
        events = list(client.responses.create(**ask, stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"  # by vLLM's word even where the answer was cut off
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == events[-1].response.output_text == answer.output_text


ASKS: list[tuple[str, type[Responses] | type[Messages], dict[str, Any]]] = [
    ("/v1/responses", Responses, {"model": MODEL, "input": QUESTION, "max_output_tokens": 24}),
    ("/v1/messages", Messages, {"model": MODEL, "messages": CHAT, "max_tokens": 24}),
]


@pytest.mark.parametrize(("path", "dialect_of", "body"), ASKS, ids=["responses", "messages"])
def test_what_a_stream_has_shown_bounds_what_was_generated(
    server: Server, path: str, dialect_of: type[Responses] | type[Messages], body: dict[str, Any]
) -> None:
    """A tenant that leaves such a stream early pays for the bound."""
    price = Price(Architecture("model", 1, 1, (AttentionLayers(1, 1, 1, 1),)), 0.0)
    tab = Tab(price, DENSE, prompts=1, prompt_tokens=PROMPT_TOKENS, n=1, max_tokens=1000)
    dialect: Dialect = dialect_of(body)
    answer = httpx.post(server.url + path, json=body | {"stream": True, "temperature": 0}, timeout=120)
    charged = []
    for event in answer.content.split(b"\n\n"):
        dialect.read_event(Event(event + b"\n\n"), tab)
        charged.append(price.longest(PROMPT_TOKENS, tab.spent(), limit=1000))
    generated = charged[-1]
    assert 8 < generated <= 24
    assert charged[0] == UNSHOWN_TOKENS
    assert generated <= max(charged) - UNSHOWN_TOKENS < 24 * 16  # no token of this answer is that long
