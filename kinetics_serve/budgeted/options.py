"""The `kinetics` object of a request: what a client may say about its budget."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from kinetics_serve.requests.errors import ApiError, from_validation, invalid
from kinetics_serve.engine.sparse import MIN_KV_BUDGET
from kinetics_serve.planner.plan import Budget, StrategyName
from kinetics_serve.scorers.judge import CRITERIA
from kinetics_serve.scorers.reward_model import Api
from kinetics_serve.scorers.verifier import host_of
from kinetics_serve.answers.extract import extractor
from kinetics_serve.answers.spec import PatternError
from kinetics_serve.answers.equivalence import EquivalenceKind

BUDGET_HEADER = "x-kinetics-budget"
MAX_BUDGET = 1e30
"""eFLOPs. More than any machine does in a lifetime, and far from where doubles end."""

MAX_SAMPLES = 1024
MAX_VERIFIER_TIMEOUT_S = 300.0
MAX_FORCE_TOKENS = 256

Positive = Annotated[float, Field(gt=0, le=MAX_BUDGET, allow_inf_nan=False, strict=True)]
Probability = Annotated[float, Field(gt=0, le=1, strict=True)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetOption(Strict):
    """Exactly one of these. `tokens` are generated tokens; `samples` are dense samples of full length."""

    eflops: Positive | None = Field(default=None, examples=[4e13])
    tokens: Annotated[int, Field(gt=0, le=10**12, strict=True)] | None = Field(default=None, examples=[20000])
    samples: Annotated[float, Field(gt=0, le=10**6, allow_inf_nan=False, strict=True)] | None = Field(
        default=None, examples=[8]
    )
    accuracy: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = Field(default=None, examples=[0.8])

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1 or None in self.model_dump(include=self.model_fields_set).values():
            raise ValueError("state exactly one of eflops, tokens, samples, accuracy")
        return self

    def budget(self) -> Budget:
        """In eFLOPs, tokens or samples. Raises ApiError for a budget by accuracy: only a calibration can price it."""
        if self.eflops is not None:
            return Budget("eflops", self.eflops)
        if self.tokens is not None:
            return Budget("tokens", self.tokens)
        if self.samples is not None:
            return Budget("samples", self.samples)
        raise invalid(
            "a budget by accuracy needs a calibration, and this server has none: state eflops, tokens or samples",
            "kinetics.budget.accuracy",
        )


class AnswerOption(Strict):
    """Where the answer stands in a sample, and when two answers are the same."""

    extractor: Literal["auto", "boxed", "number", "choice", "regex", "json", "json_pointer", "last_line"] = "auto"
    pattern: str | None = Field(default=None, examples=[r"Answer: (\w+)"])
    equivalence: EquivalenceKind = "auto"
    ignored_fields: Annotated[list[str], Field(max_length=100, examples=[["explanation"]])] = []
    force_tokens: Annotated[int, Field(ge=0, le=MAX_FORCE_TOKENS, strict=True)] = 0

    @model_validator(mode="after")
    def usable(self) -> Self:
        try:
            extractor(self.extractor, self.pattern)
        except PatternError as error:
            raise ValueError(str(error)) from None
        return self

    def for_format(self, response_format: Any) -> Self:
        """The same, or where the client asks for JSON and does not say where the answer stands in it: all of it."""
        kind = response_format.get("type") if isinstance(response_format, dict) else None
        if self.extractor == "auto" and kind in ("json_schema", "json_object"):
            return self.model_copy(update={"extractor": "json", "equivalence": "exact"})
        if self.extractor == "json" and self.equivalence == "auto":
            return self.model_copy(update={"equivalence": "exact"})
        return self


class ConfidenceScorer(Strict):
    """The model's confidence, over the whole sample or its least confident stretch. Costs nothing."""

    kind: Literal["confidence"] = "confidence"
    statistic: Literal["mean", "worst_window"] = "mean"


class RewardModelScorer(Strict):
    """A reward model that one of the upstreams serves, by vLLM's route of that name."""

    kind: Literal["reward_model"]
    model: str = Field(examples=["Skywork-Reward-V2-Qwen3-0.6B"])
    api: Api = "classify"


class JudgeScorer(Strict):
    """A language model grades the answer; by default, the one that gave it."""

    kind: Literal["judge"]
    model: str | None = Field(default=None, examples=["Qwen3-8B"])
    criteria: Annotated[str, Field(min_length=1, max_length=4000)] = CRITERIA


class HttpScorer(Strict):
    """A program at a URL whose host the server's administrator allows."""

    kind: Literal["http"]
    url: str = Field(examples=["https://verifier.example/score"])
    timeout_s: Annotated[float, Field(gt=0, le=MAX_VERIFIER_TIMEOUT_S, strict=True)] = 10.0

    @field_validator("url")
    @classmethod
    def leads_somewhere(cls, value: str) -> str:
        host_of(value)
        return value


def _kind(value: Any) -> Any:
    return value.get("kind", "confidence") if isinstance(value, dict) else getattr(value, "kind", None)


ScorerOption = Annotated[
    Annotated[ConfidenceScorer, Tag("confidence")]
    | Annotated[RewardModelScorer, Tag("reward_model")]
    | Annotated[JudgeScorer, Tag("judge")]
    | Annotated[HttpScorer, Tag("http")],
    Discriminator(_kind),
]

SCORED: tuple[StrategyName, ...] = ("best_of_n", "weighted_vote", "deepconf")
"""The strategies that score decides: the others would pay a scorer for nothing."""


class KineticsOptions(Strict):
    """Everything but the budget has a default."""

    budget: BudgetOption | None = None
    strategy: StrategyName = "auto"
    max_samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES, strict=True)] = 32
    kv_budget: Literal["auto", "dense"] | Annotated[int, Field(ge=MIN_KV_BUDGET, strict=True)] = "auto"
    answer: AnswerOption = AnswerOption()
    scorer: ScorerOption = ConfidenceScorer()
    stop_confidence: Probability = 0.95
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = Field(
        default=None, examples=[30]
    )
    include_samples: Annotated[bool, Field(strict=True)] = False
    progress: Annotated[bool, Field(strict=True)] = True

    @model_validator(mode="after")
    def score_decides(self) -> Self:
        if self.scorer.kind != "confidence" and self.strategy not in SCORED:
            raise ValueError(
                f"the scorer {self.scorer.kind!r} costs, and the strategy {self.strategy!r} does not choose by scores: "
                f"state a strategy of {', '.join(SCORED)}"
            )
        return self

    @field_validator("kv_budget", mode="before")
    @classmethod
    def known_kv_budget(cls, value: Any) -> Any:
        if value in ("auto", "dense") or (type(value) is int and value >= MIN_KV_BUDGET):
            return value
        raise ValueError(f"state auto, dense or a number of tokens from {MIN_KV_BUDGET}")


def options_of(
    body: dict[str, Any], header: str | None, efforts: dict[str, float], *, budget_needed: bool = True
) -> KineticsOptions | None:
    """The options of a request that states a budget: in its body, in the header, or by `reasoning_effort`.

    The first of the three that states one counts. None: the request states none and passes through.
    efforts: the samples' worth that each `reasoning_effort` buys. Unless budget_needed, options without a budget are
    returned too. Raises ApiError.
    """
    stated = body.get("kinetics")
    if stated is not None:
        try:
            options = KineticsOptions.model_validate(stated)
        except ValidationError as error:
            raise from_validation(error, "kinetics") from None
        if options.budget is not None:
            return options
    else:
        options = KineticsOptions()
    if header is not None:
        return options.model_copy(update={"budget": BudgetOption(eflops=_header_eflops(header))})
    samples = efforts.get(str(body.get("reasoning_effort")))
    if samples is not None:
        return options.model_copy(update={"budget": BudgetOption(samples=samples)})
    if not budget_needed:
        return options
    if stated is not None:
        raise ApiError(
            400,
            "invalid_request",
            'kinetics.budget is missing: state one, as in {"budget": {"samples": 8}}',
            "kinetics.budget",
        )
    return None


def _header_eflops(header: str) -> float:
    try:
        value = float(header)
    except ValueError:
        value = -1.0
    if not 0 < value <= MAX_BUDGET:
        raise invalid(
            f"the header X-Kinetics-Budget must be eFLOPs above 0 and up to {MAX_BUDGET:g}, such as 4e13; "
            f"given: {header[:100]!r}",
            "X-Kinetics-Budget",
        )
    return value
