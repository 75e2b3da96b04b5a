"""SDKs, in this process: each reads one stream to its end, and checks what came."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.clients.figures import ANSWER_TOKENS, KINETICS, Figures
from benchmarks.fake_upstream import ANSWERS, MODEL

QUESTION: list[Any] = [{"role": "user", "content": "What is 7 times 8?"}]
MAX_TOKENS = 50


class Wrong(Exception):
    """What a client got is not what was sent."""


def openai(url: str, budget: bool) -> Figures:
    """OpenAI's SDK, which here refuses answers that its types don't describe."""
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, _strict_response_validation=True) as client:
        ask: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "max_tokens": MAX_TOKENS, **_extra(budget)}
        whole: ChatCompletion = client.chat.completions.create(**ask)
        _check(whole.choices[0].message.content)
        usage: list[int] = []

        def texts() -> Iterator[str | None]:
            for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
                if chunk.usage is not None:
                    usage[:] = [chunk.usage.completion_tokens]
                yield chunk.choices[0].delta.content if chunk.choices else None

        return _read(texts, usage)


def litellm(url: str, budget: bool) -> Figures:
    import litellm as library

    ask: dict[str, Any] = {"model": f"openai/{MODEL}", "messages": QUESTION, "max_tokens": MAX_TOKENS}
    ask |= {"api_base": f"{url}/v1", "api_key": "none", **_extra(budget)}
    whole = library.completion(**ask)
    _check(whole.choices[0].message.content)
    texts = lambda: (chunk.choices[0].delta.content for chunk in library.completion(**ask, stream=True))  # noqa: E731
    return _read(texts, [whole.usage.completion_tokens])


def langchain(url: str, budget: bool) -> Figures:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, base_url=f"{url}/v1", api_key="none", **_extra(budget))  # type: ignore[arg-type]
    whole = model.invoke("What is 7 times 8?")
    _check(whole.text)
    assert whole.usage_metadata is not None
    return _read(
        lambda: (chunk.text for chunk in model.stream("What is 7 times 8?")), [whole.usage_metadata["output_tokens"]]
    )


def its_hub(url: str, budget: bool) -> Figures:
    """its_hub's client does not stream, counts nothing, and has no place for a budget but its header."""
    from its_hub.api import ChatMessage
    from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel

    async def ask() -> str:
        model = OpenAICompatibleLanguageModel(endpoint=f"{url}/v1", api_key="none", model_name=MODEL)
        if budget:
            model.headers["X-Kinetics-Budget"] = "1e12"
        async with model:
            return str((await model.agenerate_single([ChatMessage(role="user", content="7 times 8?")]))["content"])

    _check(asyncio.run(ask()))
    return Figures()


def _extra(budget: bool) -> dict[str, Any]:
    return {"extra_body": {"kinetics": KINETICS}} if budget else {}


def _read(texts: Callable[[], Iterator[str | None]], usage: list[int]) -> Figures:
    """The second of two streams: what a client loads at its first is no figure of a stream's.

    usage: the completion tokens that the client says, there when the stream has ended.
    """
    for _ in texts():
        pass
    began = time.perf_counter()
    arrivals, said = [], ""
    for text in texts():
        if text:
            arrivals.append(time.perf_counter() - began)
            said += text
    _check(said)
    gaps = len(arrivals) - 1
    token_ms = 1000 * (arrivals[-1] - arrivals[0]) / gaps if gaps else None
    return Figures(1000 * arrivals[0], token_ms, float(usage[0]))


def _check(text: str | None) -> None:
    if text not in ["word " * (ANSWER_TOKENS - 1) + answer for answer in ANSWERS]:
        raise Wrong(f"said {text!r:.100}")


SDKS = {"OpenAI SDK, strict": openai, "LiteLLM": litellm, "LangChain": langchain, "its_hub": its_hub}
