"""What answers look like, for the OpenAPI document."""

from typing import Any, Literal

from pydantic import Field

from kinetics_serve.answers.equivalence import Domain
from kinetics_serve.answers.no_vote import NoVote
from kinetics_serve.api.schemas.document import MODEL, Open, field
from kinetics_serve.api.schemas.requests import Message

_ITEM: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "7 times 8 is 56.", "annotations": []}],
}
_PROMPT_TOKENS_DETAILS = {"cached_tokens": 32}


class Vote(Open):
    answer: str = Field(examples=["56"])
    count: int = Field(examples=[3], description="Samples that gave it.")
    weight: float = Field(examples=[2.41], description="The sum of their scores.")


class SampleError(Open):
    code: str = Field(examples=["engine_unavailable"])
    message: str = Field(examples=["the engine broke off in the middle of a sample"])


class SampleReport(Open):
    index: int = Field(examples=[0])
    model: str = Field(examples=[MODEL])
    status: Literal["finished", "truncated", "stopped", "cancelled", "failed"]
    tokens: int = Field(examples=[21])
    answer: str | None = Field(examples=["56"])
    no_vote: NoVote | None = Field(examples=["cut_off"], description="Why it has no vote.")
    score: float = Field(examples=[0.83])
    text: str = Field(examples=["7 times 8 is 56."])
    error: SampleError | None = Field(None, description="Of one that failed.")


class Stage(Open):
    model: str = Field(examples=[MODEL])
    kv_budget: int | Literal["dense"] = Field(examples=["dense"])
    samples_started: int = Field(examples=[4])
    completion_tokens: int = Field(examples=[96])


class ForcedAnswers(Open):
    completion_tokens: int = Field(examples=[12])
    spent_eflops: int = Field(examples=[1234567])


class ScorerBill(Open):
    kind: str = Field(examples=["judge"])
    spent_eflops: int = Field(examples=[1234567])


class Rounded(Open):
    """For people; the exact numbers stand beside it."""

    budget_eflops: str = Field(examples=["1.23 G"])
    spent_eflops: str | None = field("988 M")
    sample_eflops: str | None = field("1.23 M")
    minimum_eflops: str | None = field("123 k")
    compute_flops: str | None = field("420 M")
    memory_bytes: str | None = field("1 M")
    budget_dollars: str | None = field("$0.0051", "This and below: with --price-per-gpu-hour.")
    spent_dollars: str | None = field("$0.0041")
    sample_dollars: str | None = field("$0.00064")
    minimum_dollars: str | None = field("$0.000051")


class Saved(Open):
    """What the same votes would have cost more as plain, dense self-consistency."""

    early_stop_eflops: int = Field(examples=[246913578], description="Had the vote used up its budget.")
    sparse_attention_eflops: int = Field(examples=[0], description="Had every sample attended to all of its context.")
    shared_prefix_eflops: int = Field(examples=[1234567], description="Had nothing been cached or read together.")


class Bill(Open):
    """What a budget bought."""

    strategy: str = Field(examples=["majority_vote"])
    model: str = Field(examples=[MODEL])
    kv_budget: int | Literal["dense"] = Field(examples=["dense"])
    budget_eflops: int = Field(examples=[1234567890])
    spent_eflops: int = Field(examples=[987654321], description="Never above the budget.")
    compute_flops: float = Field(examples=[4.2e8])
    memory_bytes: float = Field(examples=[1.0e6])
    arithmetic_intensity: float = Field(examples=[562.5], description="FLOPs per byte of the hardware.")
    samples_started: int = Field(examples=[5])
    samples_finished: int = Field(examples=[4], description="Ran to their end, be it max_tokens.")
    samples_truncated: int = Field(examples=[1], description="Of these, cut off by max_tokens.")
    completion_tokens: int = Field(examples=[105], description="Of all samples.")
    samples_failed: int = Field(examples=[0], description="The others went on without them.")
    stop_reason: Literal["consensus", "budget", "max_samples", "deadline", "single"]
    answer: str | None = Field(examples=["56"])
    answer_kind: Domain | None = Field(examples=["math"], description="What the answer was taken for.")
    confidence: float | None = Field(examples=[0.97], description="That the answer leads the vote.")
    votes: list[Vote]
    no_votes: dict[NoVote, int] = Field(examples=[{"cut_off": 2}], description="Why samples have no vote.")
    notes: list[str] = Field(
        examples=[["auto runs one sample: a vote needs 3, and max_samples is 1"]], description="What to know besides."
    )
    saved: Saved
    rounded: Rounded
    budget_dollars: float | None = field(0.0051, "This and the next with --price-per-gpu-hour.")
    spent_dollars: float | None = field(0.0041, "At the hardware's full rates, so the least.")
    stages: list[Stage] | None = Field(None, description="Of a cascade.")
    forced: ForcedAnswers | None = Field(None, description="With force_tokens.")
    meaning: ScorerBill | None = Field(None, description="Where a model compared what free answers mean.")
    scorer: ScorerBill | None = Field(None, description="Where a scorer was asked for that costs.")
    samples: list[SampleReport] | None = Field(None, description="With include_samples.")


class Choice(Open):
    index: int = Field(examples=[0])
    message: Message | None = Field(None, description="Of a chat completion.")
    text: str | None = field(" four, five", "Of a completion.")
    finish_reason: str | None = field("stop")
    logprobs: dict[str, Any] | None = field({"content": []})


class Usage(Open):
    """With a budget: of the prompt and of the winner, and in the details of all samples."""

    prompt_tokens: int = Field(examples=[38])
    completion_tokens: int = Field(examples=[21])
    total_tokens: int = Field(examples=[59])
    prompt_tokens_details: dict[str, Any] | None = field(_PROMPT_TOKENS_DETAILS)
    completion_tokens_details: dict[str, Any] | None = field({"sampled_tokens": 105})


class CompletionAnswer(Open):
    """A chat completion or completion."""

    id: str = Field(examples=["chatcmpl-1"])
    object: str = Field(examples=["chat.completion"])
    created: int = Field(examples=[1767225600])
    model: str = Field(examples=[MODEL])
    system_fingerprint: str | None = field("kinetics-serve-0.1.0")
    service_tier: str | None = field("default")
    choices: list[Choice]
    usage: Usage | None = None
    kinetics: Bill | None = Field(None, description="With a budget.")


class ResponseAnswer(Open):
    id: str = Field(examples=["resp_1"])
    object: str = Field(examples=["response"])
    created_at: int = Field(examples=[1767225600])
    status: str = Field(examples=["completed"])
    model: str = Field(examples=[MODEL])
    output: list[dict[str, Any]] = Field(examples=[[_ITEM]])
    usage: dict[str, Any] | None = field({"input_tokens": 38, "output_tokens": 21, "total_tokens": 59})
    incomplete_details: dict[str, Any] | None = field({"reason": "max_output_tokens"})
    error: dict[str, Any] | None = field({"code": "server_error", "message": "no engine is up at the moment"})
    kinetics: Bill | None = Field(None, description="With a budget.")


class Interval(Open):
    mean: float = Field(examples=[0.81])
    low: float = Field(examples=[0.74])
    high: float = Field(examples=[0.87])


class PlanAnswer(Open):
    """What a budget would buy. The fields from `strategy` on only where one is stated."""

    model: str = Field(examples=[MODEL])
    kv_budget: int | Literal["dense"] = Field(examples=["dense"])
    prompt_tokens: int = Field(examples=[38])
    max_tokens: int = Field(examples=[256])
    max_samples: int = Field(examples=[32])
    sample_eflops: int = Field(examples=[1234567])
    minimum_eflops: int = Field(examples=[123456])
    arithmetic_intensity: float = Field(examples=[562.5])
    strategy: str | None = field("majority_vote")
    budget_eflops: int | None = field(9876536)
    full_length_samples: int | None = field(8)
    notes: list[str] | None = field(["auto runs one sample: a vote needs 3, and max_samples is 1"])
    rounded: Rounded | None = Field(None)
    sample_dollars: float | None = field(0.00064, "This and the next two with --price-per-gpu-hour.")
    minimum_dollars: float | None = field(0.000051)
    budget_dollars: float | None = field(0.0051)
    basis: Literal["calibration", "guidance"] | None = field("guidance", "What the plan is made of.")
    assumptions: list[str] | None = field(["no calibration: nothing is known of this task"])
    stop_confidence: float | None = field(0.95, "This and all below: with a calibration.")
    deciding_votes: int | None = field(2, "So many votes end a race; null leaves it to agreement.")
    expected_eflops: float | None = field(7.5e9)
    expected_dollars: float | None = field(0.0041, "With --price-per-gpu-hour.")
    expected_accuracy: Interval | None = Field(None)
    half_budget_accuracy: Interval | None = Field(None, description="Null where half would buy nothing calibrated.")
    twice_budget_accuracy: Interval | None = Field(None)
    escalate_below: float | None = field(0.8, "This and all below: of a cascade.")
    second_model: str | None = field(MODEL)
    second_kv_budget: int | Literal["dense"] | None = field("dense")
    second_max_tokens: int | None = field(256)
    second_max_samples: int | None = field(4)


class WayOfSpending(Open):
    """A strategy with a budget, as it was measured."""

    model: str = Field(examples=[MODEL], description="Of a cascade: the first.")
    kv_budget: int | Literal["dense"] = Field(examples=["dense"])
    strategy: str = Field(examples=["majority_vote"])
    max_tokens: int = Field(examples=[256])
    samples: float = Field(examples=[4.2], description="On average.")
    samples_worth: float = Field(examples=[8], description="The budget, in samples of full length.")
    spent_eflops: Interval
    accuracy: Interval
    on_frontier: bool = Field(examples=[True], description="No cheaper one is as accurate.")


class FrontierAnswer(Open):
    """What the calibration measured, the cheapest first."""

    object: Literal["list"]
    task: str = Field(examples=["times-tables"])
    questions: int = Field(examples=[64])
    hardware: str = Field(examples=["b200"], description="What eFLOPs are counted for.")
    data: list[WayOfSpending]


class TenantLimits(Open):
    """Null is no limit."""

    window_eflops: int | None = Field(examples=[4 * 10**15])
    window_s: int = Field(examples=[86400])
    month_eflops: int | None = Field(examples=[10**17])
    request_eflops: int | None = Field(examples=[2 * 10**14])
    concurrency: int | None = Field(examples=[8])
    models: list[str] | None = Field(examples=[[MODEL]])


class UsageRow(Open):
    day: str = Field(examples=["2026-01-31"], description="UTC.")
    model: str = Field(examples=[MODEL])
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

    id: str = Field(examples=[MODEL])
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
