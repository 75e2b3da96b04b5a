"""Recorded trials of a task's questions: JSONL in the layout of the Kinetics paper's traces.

The first line is metadata, every other line one trial: `query`, `choices` (the accepted answers), `prediction` (a
list of one text) and `score` (0 or 100), as in the paper, then what replay needs and the paper's files lack: token
counts, how the sample ended, the label of its answer and the model's confidence.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
)

from kinetics_serve.answers.equivalence import quick_key, text_key
from kinetics_serve.answers.extract import auto
from kinetics_serve.answers.thinking import after_thinking
from kinetics_serve.cost import DENSE, Architecture, KVPolicy
from kinetics_serve.strategies.state import LARGEST_SCORE, Status

Json = dict[str, Any]

VERSION = 1
"""Of our keys in the metadata line."""

CACHE_BLOCK = 16
"""Tokens of a block of vLLM's prefix cache by default, for traces that don't say what their engine's was."""

CountTokens = Callable[[str], int]


class TracesError(ValueError):
    """A file that is not traces, or not the traces that were asked for; the message names the line."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One recorded sample."""

    number: int
    text: str
    tokens: int
    status: Status
    """FINISHED, or TRUNCATED by the recording's max_tokens or by repetition detection."""
    answer: str | None
    """The label of its answer among the question's; None where it has none."""
    correct: bool
    confidence: float = 0.0
    """The mean over the tokens, in nats, see strategies.confidence."""
    worst_window: float = 0.0
    """Its lowest group confidence, in nats."""
    empty: bool = False
    """Its text is but white space."""
    lows: tuple[tuple[int, float], ...] = ()
    """(token, group confidence) whenever that was lower than ever before; none where that was not recorded."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its trials, in the order of their numbers."""

    query: str
    choices: tuple[str, ...]
    prompt_tokens: int
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """How the trials were made."""

    task: str
    model: str
    max_tokens: int | None = None
    """The cap of each; None where that is not known."""
    kv: KVPolicy = DENSE
    architecture: Architecture | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else must be the same for all of them (temperature, prompt template, seed)."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """What made them: `cache_block` (tokens that its prefix cache finds together), `vllm` (its version), `device`,
    `model_root`, and the `hardware` that they were priced for. Only what was known."""

    @property
    def cache_block(self) -> int:
        """Tokens that the engine's prefix cache finds together."""
        block: int = self.engine.get("cache_block", CACHE_BLOCK)
        return block

    def as_json(self) -> Json:
        return {
            "traces": VERSION,
            "task": self.task,
            "model": self.model,
            "max_tokens": self.max_tokens,
            "kv": asdict(self.kv),
            "architecture": asdict(self.architecture) if self.architecture is not None else None,
            "sampling": dict(self.sampling),
            "engine": dict(self.engine),
        }

    @classmethod
    def from_json(cls, line: Json, name: str) -> Self:
        """Reads our metadata, or the paper's, which says no model: `name` stands for it."""
        if "traces" not in line:
            return cls(str(line.get("task", name)), str(line.get("model", name)), kv=_paper_kv(line), sampling=line)
        stated = _Header.model_validate(line)
        architecture = Architecture.from_json(stated.architecture) if stated.architecture is not None else None
        return cls(
            stated.task, stated.model, stated.max_tokens, stated.kv, architecture, stated.sampling, stated.engine
        )


class _Header(BaseModel):
    """Our metadata line."""

    traces: Literal[1]
    task: str
    model: str
    max_tokens: PositiveInt | None
    kv: KVPolicy
    architecture: Json | None
    sampling: Json
    engine: Json = {}

    @field_validator("engine")
    @classmethod
    def counts_its_blocks(cls, engine: Json) -> Json:
        block = engine.get("cache_block", CACHE_BLOCK)
        if not isinstance(block, int) or block < 0:
            raise ValueError(f"cache_block is a number of tokens, or 0 for no cache; given: {block!r}")
        return engine


class _Row(BaseModel):
    """A trial's line, as the paper has it; other fields are passed over."""

    query: str
    choices: list[str | int | float] | str = []
    prediction: Annotated[list[str], Field(min_length=1)]
    score: FiniteFloat


def _computable(score: float) -> float:
    if not abs(score) <= LARGEST_SCORE:  # or no number at all
        raise ValueError(f"expected a number from {-LARGEST_SCORE:g} to {LARGEST_SCORE:g}, given: {score}")
    return score


Confidence = Annotated[float, AfterValidator(_computable)]


class _CountedRow(_Row):
    """A trial's line with what replay needs."""

    trial: int
    prompt_tokens: PositiveInt
    tokens: NonNegativeInt
    status: Literal["finished", "truncated"]
    label: str | None
    confidence: Confidence
    worst_window: Confidence
    lows: list[tuple[int, FiniteFloat]] = []


@dataclass(frozen=True, slots=True)
class Traces:
    """A task's questions, all tried by one model with one KV policy. Only questions with trials are kept."""

    metadata: Metadata
    questions: tuple[Question, ...]

    @property
    def trials(self) -> int:
        """Trials that every question has."""
        return min((len(question.trials) for question in self.questions), default=0)

    @property
    def longest(self) -> int:
        """The most tokens that a sample may have in a replay: what the recording allowed."""
        if self.metadata.max_tokens is not None:
            return self.metadata.max_tokens
        return max(1, *[trial.tokens for question in self.questions for trial in question.trials])


def read(path: Path, count_tokens: CountTokens | None = None) -> Traces:
    """The traces in a file, ours or the paper's.

    count_tokens: the tokens of a text, for files without token counts. Raises TracesError, OSError.
    """
    lines = lines_of(path)
    _, header = next(lines, (0, None))
    if header is None:
        raise TracesError(f"{path} is empty: expected a metadata line and then one line a trial")
    try:
        metadata = Metadata.from_json(header, path.stem)
    except ValidationError as error:
        raise TracesError(f"{path}: the first line is not the metadata of traces: {_reason(error)}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise TracesError(f"{path}: the first line is not the metadata of traces: {error!r}") from None
    rows: dict[str, list[_Row]] = {}
    kind: type[_Row] | None = None
    numbers: set[tuple[str, int]] = set()
    for number, line in lines:
        kind = kind or (_CountedRow if "tokens" in line else _Row)
        try:
            row = kind.model_validate(line)
        except ValidationError as error:
            raise TracesError(f"{path}, line {number} is not a trial: {_reason(error)}") from None
        if isinstance(row, _CountedRow):
            if (row.query, row.trial) in numbers:  # two would count as independent
                raise TracesError(f"{path}, line {number} has trial {row.trial} of {row.query!r:.100} once more")
            numbers.add((row.query, row.trial))
        rows.setdefault(row.query, []).append(row)
    if not rows:
        raise TracesError(f"{path} has no trials yet")
    if kind is _Row and count_tokens is None:
        raise TracesError(
            f"{path} has no token counts: name the tokenizer of the model that made them with --tokenizer"
        )
    return Traces(metadata, tuple(_question(query, trials, count_tokens) for query, trials in rows.items()))


def _reason(error: ValidationError) -> str:
    """What is wrong with the first field that is."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def lines_of(path: Path) -> Iterator[tuple[int, Json]]:
    """The JSON objects of a file, one a line, and the numbers of the lines. Raises TracesError, OSError."""
    try:
        with path.open(encoding="utf-8-sig") as file:  # editors put a byte order mark there
            for number, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    line = json.loads(text)
                except ValueError as error:
                    raise TracesError(f"{path}, line {number} is not JSON: {error}") from None
                if not isinstance(line, dict):
                    raise TracesError(f"{path}, line {number} is not a JSON object")
                yield number, line
    except UnicodeDecodeError:
        raise TracesError(f"{path} is not UTF-8 text: unpack it, or convert it") from None


def _question(query: str, rows: list[_Row], count_tokens: CountTokens | None) -> Question:
    choices = (rows[0].choices,) if isinstance(rows[0].choices, str) else tuple(map(str, rows[0].choices))
    counted = sorted((row for row in rows if isinstance(row, _CountedRow)), key=lambda row: row.trial)
    if counted:
        return Question(query, choices, counted[0].prompt_tokens, tuple(map(_trial, counted)))
    assert count_tokens is not None
    labels: dict[str, str] = {}
    trials = []
    for number, row in enumerate(rows):
        text = row.prediction[0]
        label, empty = _label(auto(after_thinking(text)), labels), not text.strip()
        trials.append(Trial(number, text, count_tokens(text), Status.FINISHED, label, row.score > 0, empty=empty))
    return Question(query, choices, max(1, count_tokens(query)), tuple(trials))


def _trial(row: _CountedRow) -> Trial:
    text = row.prediction[0]
    return Trial(
        row.trial,
        text,
        row.tokens,
        Status(row.status),
        row.label,
        row.score > 0,
        row.confidence,
        row.worst_window,
        not text.strip(),
        tuple(row.lows),
    )


def _label(answer: str | None, labels: dict[str, str]) -> str | None:
    """The label of an answer by what needs no computer algebra."""
    if answer is None:
        return None
    return labels.setdefault(quick_key(answer, "auto") or text_key(answer), answer)


def _paper_kv(line: Json) -> KVPolicy:
    """The paper's metadata: `attn_local` tokens and the top `attn_topk` tokens or `attn_block_topk` pages."""
    if line.get("attn_local") is None:
        return DENSE
    if line.get("attn_block_topk") is not None:
        page = line["attn_block_size"]
        return KVPolicy(line["attn_local"] + page * line["attn_block_topk"], page, summary_vectors=1)
    budget = line["attn_local"] + (line.get("attn_topk") or 0)
    return KVPolicy(budget) if budget else DENSE
