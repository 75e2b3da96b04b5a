"""What requests look like, for the OpenAPI document.

They are not validated by these: vLLM checks what is its own, and budgeted/ and requests/ check ours, with better words.
Other fields go to vLLM too.
"""

from typing import Any

from pydantic import Field

from kinetics_serve.api.schemas.document import MODEL, Open, field
from kinetics_serve.budgeted.options import KineticsOptions

_BUDGET: dict[str, Any] = {"budget": {"samples": 8}, "strategy": "majority_vote", "answer": {"extractor": "number"}}
_TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
_CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 7, "b": 8}'}}
_FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}


class Sampling(Open):
    """What every request that generates may state."""

    model: str | None = field(MODEL, "By default the first that the upstreams serve.")
    stream: bool | None = field(False)
    temperature: float | None = field(0.7, ge=0)
    top_p: float | None = field(0.95)
    top_k: int | None = field(20, "vLLM's own.")
    min_p: float | None = field(0.05, "vLLM's own.")
    seed: int | None = field(1, "With a budget, sample i gets the seed + i.")
    stop: str | list[str] | None = field(["\n\n"])
    presence_penalty: float | None = field(0.0)
    frequency_penalty: float | None = field(0.0)
    repetition_penalty: float | None = field(1.0, "vLLM's own.")
    logit_bias: dict[str, float] | None = field({"50256": -100})
    user: str | None = field("user-7")
    cache_salt: str | None = field("user-7", "Prompts with different salts share no prefix cache.")
    vllm_xargs: dict[str, Any] | None = field({"kv_budget": 512}, "Extensions of vLLM's; without a budget.")
    kinetics: KineticsOptions | None = field(_BUDGET, "The budget, and how to spend it.")


class StreamOptions(Open):
    include_usage: bool | None = field(True)
    continuous_usage_stats: bool | None = field(False, "vLLM's own: usage with each chunk; without a budget.")


class Message(Open):
    role: str = Field(examples=["user"])
    content: str | list[dict[str, Any]] | None = field("What is 7 times 8?")
    name: str | None = field("ada")
    tool_calls: list[dict[str, Any]] | None = field([_CALL])
    tool_call_id: str | None = field("call_1")


class ChatCompletionRequest(Sampling):
    messages: list[Message] = Field(examples=[[{"role": "user", "content": "What is 7 times 8?"}]])
    max_tokens: int | None = field(256, "Of each sample.", ge=1)
    max_completion_tokens: int | None = field(256, "The same, in OpenAI's newer words.", ge=1)
    n: int | None = field(1, "With a budget it must be 1.", ge=1)
    logprobs: bool | None = field(True)
    top_logprobs: int | None = field(3, ge=0, le=20)
    reasoning_effort: str | None = field("medium", "Also states a budget, where kinetics does not.")
    response_format: dict[str, Any] | None = field(_FORMAT)
    tools: list[dict[str, Any]] | None = field([_TOOL])
    tool_choice: str | dict[str, Any] | None = field("auto")
    parallel_tool_calls: bool | None = field(True)
    stream_options: StreamOptions | None = field({"include_usage": True})
    chat_template_kwargs: dict[str, Any] | None = field({"enable_thinking": False}, "vLLM's own.")
    metadata: dict[str, str] | None = field({"job": "nightly"})


class CompletionRequest(Sampling):
    prompt: str | list[Any] = Field(examples=["One, two, three,"], description="With a budget: one text or token list.")
    max_tokens: int | None = field(64, "Of each sample.", ge=1)
    n: int | None = field(1, "With a budget it must be 1.", ge=1)
    logprobs: int | None = field(1, ge=0, le=20)
    echo: bool | None = field(False, "Not with a budget.")
    suffix: str | None = field("five", "Where the model can fill in.")
    stream_options: StreamOptions | None = field({"include_usage": True})


class ResponsesRequest(Sampling):
    input: str | list[dict[str, Any]] = Field(examples=["What is 7 times 8?"])
    instructions: str | None = field("Be brief.")
    max_output_tokens: int | None = field(256, "Of each sample.", ge=1)
    reasoning: dict[str, Any] | None = field({"effort": "medium"}, "effort also states a budget.")
    text: dict[str, Any] | None = field({"format": {"type": "text"}})
    tools: list[dict[str, Any]] | None = field([{"type": "function", "name": "add", "parameters": {}}])
    tool_choice: str | dict[str, Any] | None = field("auto")
    parallel_tool_calls: bool | None = field(True)
    top_logprobs: int | None = field(3, ge=0, le=20)
    include: list[str] | None = field(["message.output_text.logprobs"])
    metadata: dict[str, str] | None = field({"job": "nightly"})
    store: bool | None = field(False, "Ignored: nothing is stored.")
    truncation: str | None = field("disabled", "No other.")


class MessagesRequest(Open):
    """Anthropic's."""

    model: str = Field(examples=[MODEL])
    messages: list[Message] = Field(examples=[[{"role": "user", "content": "What is 7 times 8?"}]])
    max_tokens: int = Field(examples=[256], ge=1)
    system: str | list[dict[str, Any]] | None = field("Be brief.")
    stream: bool | None = field(False)
    temperature: float | None = field(0.7)
    stop_sequences: list[str] | None = field(["\n\n"])
    tools: list[dict[str, Any]] | None = field([{"name": "add", "input_schema": {"type": "object"}}])


class PassedRequest(Open):
    """Whatever vLLM takes on this route."""

    model: str | None = field(MODEL)
    input: str | list[Any] | None = field(["What is 7 times 8?"], "Embeddings, classes, pooling.")
    prompt: str | None = field("What is 7 times 8?", "Tokenizing.")
    tokens: list[int] | None = field([1, 2, 3], "Detokenizing.")
    query: str | None = field("seven times eight", "Reranking.")
    documents: list[str] | None = field(["56", "54"], "Reranking.")


class PassedFile(Open):
    """A form. Not where the server keeps a ledger."""

    file: str = Field(examples=["speech.wav"], json_schema_extra={"format": "binary"})
    model: str | None = field("whisper-small")
