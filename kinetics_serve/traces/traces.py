"""Recorded trials of a task's questions: JSONL in the layout of the Kinetics paper's traces.

The first line is metadata, every other line one trial: `query`, `choices` (the accepted answers), `prediction` (a
list of one text) and `score` (0 or 100), as in the paper, then what replay needs and the paper's files lack: token
counts, how the sample ended, the label of its answer and the model's confidence.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from kinetics_serve.answers.equivalence import quick_key, text_key
from kinetics_serve.answers.extract import auto
from kinetics_serve.answers.thinking import after_thinking
from kinetics_serve.cost import DENSE, Architecture, KVPolicy
from kinetics_serve.strategies.state import Status

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
        return int(self.engine.get("cache_block", CACHE_BLOCK))

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
        return cls(
            line["task"],
            line["model"],
            line["max_tokens"],
            KVPolicy(**line["kv"]),
            architecture_of(line["architecture"]) if line["architecture"] is not None else None,
            line["sampling"],
            line.get("engine", {}),
        )


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
        return max(trial.tokens for question in self.questions for trial in question.trials)


def architecture_of(fields: Mapping[str, Any]) -> Architecture:
    """The architecture that `dataclasses.asdict` took apart."""
    return Architecture.from_json(fields)


def read(path: Path, count_tokens: CountTokens | None = None) -> Traces:
    """The traces in a file, ours or the paper's.

    count_tokens: the tokens of a text, for files without token counts. Raises TracesError, OSError.
    """
    lines = lines_of(path)
    try:
        metadata = Metadata.from_json(next(lines), path.stem)
    except StopIteration:
        raise TracesError(f"{path} is empty: expected a metadata line and then one line a trial") from None
    except (KeyError, TypeError, ValueError) as error:
        raise TracesError(f"{path}: the first line is not the metadata of traces: {error!r}") from None
    rows: dict[str, list[Json]] = {}
    for number, line in enumerate(lines, 2):
        if "query" not in line or "prediction" not in line:
            raise TracesError(f"{path}, line {number}: a trial needs query, choices, prediction and score")
        rows.setdefault(line["query"], []).append(line)
    if not rows:
        raise TracesError(f"{path} has no trials yet")
    try:
        return Traces(metadata, tuple(_question(query, trials, count_tokens) for query, trials in rows.items()))
    except TracesError as error:
        raise TracesError(f"{path}: {error}") from None


def lines_of(path: Path) -> Iterator[Json]:
    """The JSON objects of a file, one a line. Raises TracesError, OSError."""
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except ValueError as error:
                raise TracesError(f"{path}, line {number} is not JSON: {error}") from None
            if not isinstance(line, dict):
                raise TracesError(f"{path}, line {number} is not a JSON object")
            yield line


def _question(query: str, rows: list[Json], count_tokens: CountTokens | None) -> Question:
    if "tokens" in rows[0]:
        numbered = sorted(rows, key=lambda row: int(row["trial"]))
        return Question(query, _choices(rows[0]), rows[0]["prompt_tokens"], tuple(_trial(row) for row in numbered))
    if count_tokens is None:
        raise TracesError(
            "these traces have no token counts: name the tokenizer of the model that made them with --tokenizer"
        )
    labels: dict[str, str] = {}
    trials = []
    for number, row in enumerate(rows):
        text = row["prediction"][0]
        label = _label(auto(after_thinking(text)), labels)
        trials.append(Trial(number, text, count_tokens(text), Status.FINISHED, label, row["score"] > 0, empty=not text))
    return Question(query, _choices(rows[0]), count_tokens(query), tuple(trials))


def _trial(row: Json) -> Trial:
    return Trial(
        row["trial"],
        row["prediction"][0],
        row["tokens"],
        Status(row["status"]),
        row["label"],
        row["score"] > 0,
        row["confidence"],
        row["worst_window"],
        not row["prediction"][0].strip(),
        tuple([(token, confidence) for token, confidence in row.get("lows", ())]),
    )


def _choices(row: Json) -> tuple[str, ...]:
    choices = row.get("choices", ())
    return (choices,) if isinstance(choices, str) else tuple(map(str, choices))


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
