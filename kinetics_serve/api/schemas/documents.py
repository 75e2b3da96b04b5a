"""What requests and answers look like, for the OpenAPI document.

Requests are not validated by these: vLLM checks what is its own, and options.py, prompt.py and response_input.py check
ours, with better words. Other fields go to vLLM too.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kinetics_serve.budgeted.options import KineticsOptions

_MODEL = "SmolLM2-135M-Instruct"
_BUDGET: dict[str, Any] = {"budget": {"samples": 8}, "strategy": "majority_vote", "answer": {"extractor": "number"}}
_TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
_CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 7, "b": 8}'}}
_FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
_ITEM: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "7 times 8 is 56.", "annotations": []}],
}
_PROMPT_TOKENS_DETAILS = {"cached_tokens": 32}


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


def _field(example: Any, text: str | None = None, default: Any = None, **more: Any) -> Any:
    return Field(default, examples=[example], description=text, **more)


class Sampling(Open):
    """What every request that generates may state."""

    model: str | None = _field(_MODEL, "By default the first that the upstreams serve.")
    stream: bool | None = _field(False)
    temperature: float | None = _field(0.7, ge=0)
    top_p: float | None = _field(0.95)
    top_k: int | None = _field(20, "vLLM's own.")
    min_p: float | None = _field(0.05, "vLLM's own.")
    seed: int | None = _field(1, "With a budget, sample i gets the seed + i.")
    stop: str | list[str] | None = _field(["\n\n"])
    presence_penalty: float | None = _field(0.0)
    frequency_penalty: float | None = _field(0.0)
    repetition_penalty: float | None = _field(1.0, "vLLM's own.")
    logit_bias: dict[str, float] | None = _field({"50256": -100})
    user: str | None = _field("user-7")
    cache_salt: str | None = _field("user-7", "Prompts with different salts share no prefix cache.")
    vllm_xargs: dict[str, Any] | None = _field({"kv_budget": 512}, "Extensions of vLLM's; without a budget.")
    kinetics: KineticsOptions | None = _field(_BUDGET, "The budget, and how to spend it.")


class StreamOptions(Open):
    include_usage: bool | None = _field(True)
    continuous_usage_stats: bool | None = _field(False, "vLLM's own: usage with each chunk; without a budget.")


class Message(Open):
    role: str = Field(examples=["user"])
    content: str | list[dict[str, Any]] | None = _field("What is 7 times 8?")
    name: str | None = _field("ada")
    tool_calls: list[dict[str, Any]] | None = _field([_CALL])
    tool_call_id: str | None = _field("call_1")


class ChatCompletionRequest(Sampling):
    messages: list[Message] = Field(examples=[[{"role": "user", "content": "What is 7 times 8?"}]])
    max_tokens: int | None = _field(256, "Of each sample.", ge=1)
    max_completion_tokens: int | None = _field(256, "The same, in OpenAI's newer words.", ge=1)
    n: int | None = _field(1, "With a budget it must be 1.", ge=1)
    logprobs: bool | None = _field(True)
    top_logprobs: int | None = _field(3, ge=0, le=20)
    reasoning_effort: str | None = _field("medium", "Also states a budget, where kinetics does not.")
    response_format: dict[str, Any] | None = _field(_FORMAT)
    tools: list[dict[str, Any]] | None = _field([_TOOL])
    tool_choice: str | dict[str, Any] | None = _field("auto")
    parallel_tool_calls: bool | None = _field(True)
    stream_options: StreamOptions | None = _field({"include_usage": True})
    chat_template_kwargs: dict[str, Any] | None = _field({"enable_thinking": False}, "vLLM's own.")
    metadata: dict[str, str] | None = _field({"job": "nightly"})


class CompletionRequest(Sampling):
    prompt: str | list[Any] = Field(examples=["One, two, three,"], description="With a budget: one text or token list.")
    max_tokens: int | None = _field(64, "Of each sample.", ge=1)
    n: int | None = _field(1, "With a budget it must be 1.", ge=1)
    logprobs: int | None = _field(1, ge=0, le=20)
    echo: bool | None = _field(False, "Not with a budget.")
    suffix: str | None = _field("five", "Where the model can fill in.")
    stream_options: StreamOptions | None = _field({"include_usage": True})


class ResponsesRequest(Sampling):
    input: str | list[dict[str, Any]] = Field(examples=["What is 7 times 8?"])
    instructions: str | None = _field("Be brief.")
    max_output_tokens: int | None = _field(256, "Of each sample.", ge=1)
    reasoning: dict[str, Any] | None = _field({"effort": "medium"}, "effort also states a budget.")
    text: dict[str, Any] | None = _field({"format": {"type": "text"}})
    tools: list[dict[str, Any]] | None = _field([{"type": "function", "name": "add", "parameters": {}}])
    tool_choice: str | dict[str, Any] | None = _field("auto")
    parallel_tool_calls: bool | None = _field(True)
    top_logprobs: int | None = _field(3, ge=0, le=20)
    include: list[str] | None = _field(["message.output_text.logprobs"])
    metadata: dict[str, str] | None = _field({"job": "nightly"})
    store: bool | None = _field(False, "Ignored: nothing is stored.")
    truncation: str | None = _field("disabled", "No other.")


class MessagesRequest(Open):
    """Anthropic's."""

    model: str = Field(examples=[_MODEL])
    messages: list[Message] = Field(examples=[[{"role": "user", "content": "What is 7 times 8?"}]])
    max_tokens: int = Field(examples=[256], ge=1)
    system: str | list[dict[str, Any]] | None = _field("Be brief.")
    stream: bool | None = _field(False)
    temperature: float | None = _field(0.7)
    stop_sequences: list[str] | None = _field(["\n\n"])
    tools: list[dict[str, Any]] | None = _field([{"name": "add", "input_schema": {"type": "object"}}])


class PassedRequest(Open):
    """Whatever vLLM takes on this route."""

    model: str | None = _field(_MODEL)
    input: str | list[Any] | None = _field(["What is 7 times 8?"], "Embeddings, classes, pooling.")
    prompt: str | None = _field("What is 7 times 8?", "Tokenizing.")
    tokens: list[int] | None = _field([1, 2, 3], "Detokenizing.")
    query: str | None = _field("seven times eight", "Reranking.")
    documents: list[str] | None = _field(["56", "54"], "Reranking.")


class PassedFile(Open):
    """A form. Not where the server keeps a ledger."""

    file: str = Field(examples=["speech.wav"], json_schema_extra={"format": "binary"})
    model: str | None = _field("whisper-small")


class Vote(Open):
    answer: str = Field(examples=["56"])
    count: int = Field(examples=[3], description="Samples that gave it.")
    weight: float = Field(examples=[2.41], description="The sum of their scores.")


class SampleReport(Open):
    index: int = Field(examples=[0])
    model: str = Field(examples=[_MODEL])
    status: Literal["finished", "truncated", "stopped", "cancelled"]
    tokens: int = Field(examples=[21])
    answer: str | None = Field(examples=["56"])
    score: float = Field(examples=[0.83])
    text: str = Field(examples=["7 times 8 is 56."])


class Stage(Open):
    model: str = Field(examples=[_MODEL])
    kv_budget: int | Literal["dense"] = Field(examples=["dense"])
    samples_started: int = Field(examples=[4])
    completion_tokens: int = Field(examples=[96])


class ForcedAnswers(Open):
    completion_tokens: int = Field(examples=[12])
    spent_eflops: int = Field(examples=[1234567])


class ScorerBill(Open):
    kind: str = Field(examples=["judge"])
    spent_eflops: int = Field(examples=[1234567])


class Bill(Open):
    """What a budget bought."""

    strategy: str = Field(examples=["majority_vote"])
    model: str = Field(examples=[_MODEL])
    kv_budget: int | Literal["dense"] = Field(examples=["dense"])
    budget_eflops: int = Field(examples=[1234567890])
    spent_eflops: int = Field(examples=[987654321], description="Never above the budget.")
    compute_flops: float = Field(examples=[4.2e8])
    memory_bytes: float = Field(examples=[1.0e6])
    arithmetic_intensity: float = Field(examples=[562.5], description="FLOPs per byte of the hardware.")
    samples_started: int = Field(examples=[5])
    samples_finished: int = Field(examples=[4])
    stop_reason: Literal["consensus", "budget", "max_samples", "deadline", "single"]
    answer: str | None = Field(examples=["56"])
    confidence: float | None = Field(examples=[0.97], description="That the answer leads the vote.")
    votes: list[Vote]
    stages: list[Stage] | None = Field(None, description="Of a cascade.")
    forced: ForcedAnswers | None = Field(None, description="With force_tokens.")
    scorer: ScorerBill | None = Field(None, description="Where a scorer was asked for that costs.")
    samples: list[SampleReport] | None = Field(None, description="With include_samples.")


class Choice(Open):
    index: int = Field(examples=[0])
    message: Message | None = Field(None, description="Of a chat completion.")
    text: str | None = _field(" four, five", "Of a completion.")
    finish_reason: str | None = _field("stop")
    logprobs: dict[str, Any] | None = _field({"content": []})


class Usage(Open):
    """With a budget: the prompt once, and the tokens of all samples."""

    prompt_tokens: int = Field(examples=[38])
    completion_tokens: int = Field(examples=[105])
    total_tokens: int = Field(examples=[143])
    prompt_tokens_details: dict[str, Any] | None = _field(_PROMPT_TOKENS_DETAILS)


class CompletionAnswer(Open):
    """A chat completion or completion."""

    id: str = Field(examples=["chatcmpl-1"])
    object: str = Field(examples=["chat.completion"])
    created: int = Field(examples=[1767225600])
    model: str = Field(examples=[_MODEL])
    choices: list[Choice]
    usage: Usage | None = None
    kinetics: Bill | None = Field(None, description="With a budget.")


class ResponseAnswer(Open):
    id: str = Field(examples=["resp_1"])
    object: str = Field(examples=["response"])
    created_at: int = Field(examples=[1767225600])
    status: str = Field(examples=["completed"])
    model: str = Field(examples=[_MODEL])
    output: list[dict[str, Any]] = Field(examples=[[_ITEM]])
    usage: dict[str, Any] | None = _field({"input_tokens": 38, "output_tokens": 105, "total_tokens": 143})
    incomplete_details: dict[str, Any] | None = _field({"reason": "max_output_tokens"})
    error: dict[str, Any] | None = _field({"code": "server_error", "message": "no engine is up at the moment"})
    kinetics: Bill | None = Field(None, description="With a budget.")


class Interval(Open):
    mean: float = Field(examples=[0.81])
    low: float = Field(examples=[0.74])
    high: float = Field(examples=[0.87])


class PlanAnswer(Open):
    """What a budget would buy. The fields from `strategy` on only where one is stated."""

    model: str = Field(examples=[_MODEL])
    kv_budget: int | Literal["dense"] = Field(examples=["dense"])
    prompt_tokens: int = Field(examples=[38])
    max_tokens: int = Field(examples=[256])
    max_samples: int = Field(examples=[32])
    sample_eflops: int = Field(examples=[1234567])
    minimum_eflops: int = Field(examples=[123456])
    arithmetic_intensity: float = Field(examples=[562.5])
    strategy: str | None = _field("majority_vote")
    budget_eflops: int | None = _field(9876536)
    full_length_samples: int | None = _field(8)
    basis: Literal["calibration", "guidance"] | None = _field("guidance", "What the plan is made of.")
    assumptions: list[str] | None = _field(["no calibration: nothing is known of this task"])
    stop_confidence: float | None = _field(0.95, "This and all below: with a calibration.")
    deciding_votes: int | None = _field(2, "So many votes end a race; null leaves it to agreement.")
    expected_eflops: float | None = _field(7.5e9)
    expected_accuracy: Interval | None = Field(None)
    half_budget_accuracy: Interval | None = Field(None, description="Null where half would buy nothing calibrated.")
    twice_budget_accuracy: Interval | None = Field(None)
    escalate_below: float | None = _field(0.8, "This and all below: of a cascade.")
    second_model: str | None = _field(_MODEL)
    second_kv_budget: int | Literal["dense"] | None = _field("dense")
    second_max_tokens: int | None = _field(256)
    second_max_samples: int | None = _field(4)


class TenantLimits(Open):
    """Null is no limit."""

    window_eflops: int | None = Field(examples=[4 * 10**15])
    window_s: int = Field(examples=[86400])
    month_eflops: int | None = Field(examples=[10**17])
    request_eflops: int | None = Field(examples=[2 * 10**14])
    concurrency: int | None = Field(examples=[8])
    models: list[str] | None = Field(examples=[[_MODEL]])


class UsageRow(Open):
    day: str = Field(examples=["2026-01-31"], description="UTC.")
    model: str = Field(examples=[_MODEL])
    strategy: str = Field(examples=["majority_vote"], description="pass_through for requests without a budget.")
    requests: int = Field(examples=[12])
    eflops: int = Field(examples=[9876543210])


class UsageAnswer(Open):
    """What a tenant spent, and what counts against its limits now, in eFLOPs."""

    object: Literal["list"]
    tenant: str = Field(examples=["acme"])
    limits: TenantLimits
    window_spent_eflops: int = Field(examples=[9876543210])
    month_spent_eflops: int = Field(examples=[9876543210])
    reserved_eflops: int = Field(examples=[1234567890])
    running_requests: int = Field(examples=[1])
    data: list[UsageRow]


class ModelCard(Open):
    """As vLLM lists it."""

    id: str = Field(examples=[_MODEL])
    object: Literal["model"]


class ModelList(Open):
    object: Literal["list"]
    data: list[ModelCard]


class ReadyAnswer(Open):
    ready: bool = Field(examples=[True])


class Error(Open):
    message: str = Field(examples=["kinetics.budget is missing: state one, as in {'budget': {'samples': 8}}"])
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(examples=["kinetics.budget"])
    code: str | None = Field(examples=["invalid_request"])


class ErrorAnswer(Open):
    error: Error
