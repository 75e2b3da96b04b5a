"""The `kinetics` object of a request: what a client may say about its budget."""

import json
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

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
from starlette.datastructures import Headers

from kinetics_serve.answers.behaviour import Trials
from kinetics_serve.answers.equivalence import AnswerKind, EquivalenceKind
from kinetics_serve.answers.extract import EXTRACTORS, extractor
from kinetics_serve.answers.spec import PatternError
from kinetics_serve.budgeted.stated_budget import BUDGET_HEADER, BudgetOption, EffortOption, header_eflops
from kinetics_serve.registry import BrokenPart, UnknownPart, did_you_mean
from kinetics_serve.requests.errors import ApiError, from_validation
from kinetics_serve.scorers.confidence import ConfidenceScorer
from kinetics_serve.scorers.meaning import EmbeddingMeaning, JudgeMeaning
from kinetics_serve.scorers.spec import CONFIDENCE, SCORERS, ScorerOptions
from kinetics_serve.strategies.spec import AUTO, STRATEGIES, policy_of

MAX_SAMPLES = 1024
MAX_FORCE_TOKENS = 256

MAX_INPUTS = 32
MAX_INPUT_CHARACTERS = 1 << 20
"""Of all inputs together."""

MAX_INPUT_S = 10.0
"""Of processor time, that a program may take on one input."""

_SPECS = [spec for spec in map(STRATEGIES.get, STRATEGIES.names) if spec.arms == 1]

STRATEGY_NAMES = [AUTO, *(spec.name for spec in _SPECS)]
"""What a client may name."""

BY_SCORE = [spec.name for spec in _SPECS if spec.by_score]
"""The strategies that score decides: the others would pay a scorer for nothing."""

OPTIONS_OF_STRATEGIES = ". ".join(
    f"{spec.name}: {name} ({json.dumps(field.default)}), {(field.description or 'its own').lower().rstrip('.')}"
    for spec in _SPECS
    for name, field in spec.options.model_fields.items()
)
"""What `strategy_options` can hold, for the OpenAPI document."""

Progress = Annotated[bool, Field(strict=True)] | Literal["event"]
"""Whether a stream tells how far it is: in chunks without choices, or in events with a name of their own."""

Probability = Annotated[float, Field(gt=0, le=1, strict=True)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProgramTrials(Strict):
    """What the samples' programs are tried on: those that answer alike are one answer."""

    inputs: Annotated[
        list[str | list[Any]], Field(min_length=1, max_length=MAX_INPUTS, examples=[["1 2\n", "3 4\n"], [[1, 2]]])
    ]
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")] | None = Field(
        default=None, examples=["add"]
    )
    time_limit_s: Annotated[float, Field(gt=0, le=MAX_INPUT_S, allow_inf_nan=False, strict=True)] = 2.0

    @model_validator(mode="after")
    def of_one_shape(self) -> Self:
        wanted = list if self.function else str
        if not all(isinstance(given, wanted) for given in self.inputs):
            raise ValueError(
                "with a function every input is the list of its arguments"
                if self.function
                else "every input is a text for stdin; lists of arguments need a function"
            )
        if (size := sum(map(len, self.trials().inputs))) > MAX_INPUT_CHARACTERS:
            raise ValueError(f"the inputs have {size} characters, at most {MAX_INPUT_CHARACTERS} are allowed")
        return self

    def trials(self) -> Trials:
        lines = [given if isinstance(given, str) else "\n".join(map(json.dumps, given)) for given in self.inputs]
        return Trials(tuple(lines), self.function or "", self.time_limit_s)


class AnswerOption(Strict):
    """Where the answer stands in a sample, and when two answers are the same."""

    kind: AnswerKind = "auto"
    extractor: Annotated[str, Field(json_schema_extra={"enum": EXTRACTORS.names})] = "auto"
    pattern: str | None = Field(default=None, examples=[r"Answer: (\w+)"])
    equivalence: EquivalenceKind = "auto"
    ignored_fields: Annotated[list[str], Field(max_length=100, examples=[["explanation"]])] = []
    force_tokens: Annotated[int, Field(ge=0, le=MAX_FORCE_TOKENS, strict=True)] = 0
    tests: ProgramTrials | None = None
    meaning: Annotated[JudgeMeaning | EmbeddingMeaning, Field(discriminator="kind")] | None = None

    @model_validator(mode="after")
    def usable(self) -> Self:
        try:
            extractor(self.extractor, self.pattern)
        except (PatternError, UnknownPart, BrokenPart) as error:
            raise ValueError(str(error)) from None
        if (self.kind == "code") != (self.tests is not None):
            raise ValueError('answers of the kind "code" vote by what they do on tests: state both or neither')
        if self.meaning is not None and self.kind != "text":
            raise ValueError('a meaning is compared of free text: state it with the kind "text"')
        return self

    def for_format(self, response_format: Any) -> Self:
        """The same with what its kind implies. Where nothing is stated and the client asks for JSON, it is of that."""
        kind = self.kind
        stated = response_format.get("type") if isinstance(response_format, dict) else None
        if kind == "auto" and self.extractor == "auto" and stated in ("json_schema", "json_object"):
            kind = "json"
        implied: dict[str, Any] = {"kind": kind}
        if self.extractor == "auto" and kind in ("choice", "json"):
            implied["extractor"] = kind
        if self.equivalence == "auto":
            by_values = implied.get("extractor", self.extractor) == "json"
            implied["equivalence"] = "json" if by_values else "exact" if kind == "code" else kind
        return self.model_copy(update=implied)


def _scorer_kind(value: Any) -> Any:
    return value.get("kind", CONFIDENCE) if isinstance(value, dict) else getattr(value, "kind", None)


if TYPE_CHECKING:
    ScorerOption = ScorerOptions
else:  # the options of every scorer that a package announces
    _scorers = tuple(Annotated[SCORERS.get(name).options, Tag(name)] for name in SCORERS.names)
    ScorerOption = Annotated[Union[_scorers], Discriminator(_scorer_kind)]  # noqa: UP007  of a tuple


class KineticsOptions(Strict):
    """Everything but the budget has a default."""

    budget: BudgetOption | None = None
    strategy: Annotated[str, Field(json_schema_extra={"enum": STRATEGY_NAMES})] = AUTO
    strategy_options: Annotated[
        dict[str, Any], Field(examples=[{"stop_confidence": 0.9}], description=OPTIONS_OF_STRATEGIES)
    ] = {}
    max_samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES, strict=True)] = 32
    kv_budget: Literal["auto", "dense"] | Annotated[int, Field(ge=1, strict=True)] = "auto"
    answer: AnswerOption = AnswerOption()
    scorer: ScorerOption = ConfidenceScorer()
    stop_confidence: Probability = 0.95
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = Field(
        default=None, examples=[30]
    )
    include_samples: Annotated[bool, Field(strict=True)] = False
    progress: Progress = True
    keep_alive: Annotated[bool, Field(strict=True)] = True

    @field_validator("strategy")
    @classmethod
    def known_strategy(cls, value: str) -> str:
        if value not in STRATEGY_NAMES:
            raise ValueError(
                f"no strategy is called so: there are {', '.join(STRATEGY_NAMES)}{did_you_mean(value, STRATEGY_NAMES)}"
            )
        return value

    @field_validator("scorer", mode="before")
    @classmethod
    def known_scorer(cls, value: Any) -> Any:
        kind = _scorer_kind(value)
        if isinstance(kind, str):
            SCORERS.get(kind)  # raises with what there is
        return value

    @model_validator(mode="after")
    def options_suit_the_strategy(self) -> Self:
        if self.strategy == AUTO:
            if self.strategy_options:
                raise ValueError("strategy_options are of a strategy: name one")
            return self
        try:
            policy_of(self.strategy, self.strategy_options, self.stop_confidence)
        except ValidationError as error:
            raise ValueError(f"of strategy_options, {from_validation(error)}") from None
        return self

    @model_validator(mode="after")
    def score_decides(self) -> Self:
        if self.scorer.kind != CONFIDENCE and self.strategy not in BY_SCORE:
            raise ValueError(
                f"the scorer {self.scorer.kind!r} costs, and the strategy {self.strategy!r} does not choose by scores: "
                f"state a strategy of {', '.join(BY_SCORE)}"
            )
        return self

    @field_validator("kv_budget", mode="before")
    @classmethod
    def known_kv_budget(cls, value: Any) -> Any:
        if value in ("auto", "dense") or (type(value) is int and value >= 1):
            return value
        raise ValueError("state auto, dense or a number of tokens")


def options_of(
    body: dict[str, Any], headers: Headers, efforts: dict[str, float], *, budget_needed: bool = True
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
    else:  # who knows nothing of `kinetics` may not expect a chunk without choices either
        options = KineticsOptions(progress=False)
    stated_header = headers.getlist(BUDGET_HEADER)
    if stated_header:
        return options.model_copy(update={"budget": BudgetOption(eflops=header_eflops(stated_header))})
    samples = efforts.get(str(body.get("reasoning_effort")))
    if samples is not None:
        most = max(options.max_samples, min(ceil(samples), MAX_SAMPLES))
        return options.model_copy(update={"budget": EffortOption(samples=samples), "max_samples": most})
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
