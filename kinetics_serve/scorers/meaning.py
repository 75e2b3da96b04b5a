"""Whether two free texts say the same, by a language model that judges or by a model of embeddings."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import isfinite, sqrt
from operator import mul
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from kinetics_serve.cost import ZERO, Cost
from kinetics_serve.engine.errors import EngineRejected, EngineUnavailable
from kinetics_serve.engine.upstream import Json
from kinetics_serve.scorers.reward_model import question
from kinetics_serve.scorers.scorer import ScorerFailed, ScorerPrompt
from kinetics_serve.scorers.spec import ScorerContext, ScorerEngine

ANSWER_CHARACTERS = 400
ANSWER_TOKENS = 64
"""Of an answer, what is read of it and what that is taken for: see scorer.TOKENS_PER_TOKEN for the slack."""

YES, NO = "yes", "no"


class MeaningOptions(BaseModel):
    """What tells that answers say the same. max_groups: a sample is compared with so many groups, the first ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_groups: Annotated[int, Field(ge=1, le=64, strict=True)] = 8


class JudgeMeaning(MeaningOptions):
    """A language model says whether each of two answers follows from the other; by default, the one that gave them."""

    kind: Literal["judge"]
    model: str | None = Field(default=None, examples=["Qwen3-8B"])


class EmbeddingMeaning(MeaningOptions):
    """The embeddings of two answers have at least this cosine."""

    kind: Literal["embedding"]
    model: str = Field(examples=["Qwen3-Embedding-0.6B"])
    threshold: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.9


class MeaningFailed(ScorerFailed):
    """No comparison could be had; the message says from whom and why."""

    param = "kinetics.answer.meaning"


class Meaning(Protocol):
    """Reads each answer once, then compares what it has read."""

    def worst_case(self, groups: int) -> Cost:
        """The most that placing one answer among so many groups can cost."""
        ...

    async def read(self, answer: str) -> tuple[Any, Cost]:
        """What comparisons need of an answer. Raises MeaningFailed."""
        ...

    async def same(self, a: Any, b: Any) -> tuple[bool, Cost]:
        """Whether two that were read say the same. Symmetric. Raises MeaningFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Entailment:
    """Two answers say the same if each follows from the other (semantic entropy, arXiv 2302.09664)."""

    engine: ScorerEngine
    question: str
    prompt: ScorerPrompt
    fields: Json

    def worst_case(self, groups: int) -> Cost:
        return sum([self.prompt.worst_case(2 * ANSWER_TOKENS)] * (2 * groups), ZERO)

    async def read(self, answer: str) -> tuple[str, Cost]:
        return answer[-ANSWER_CHARACTERS:], ZERO

    async def same(self, a: str, b: str) -> tuple[bool, Cost]:
        there, cost = await self._follows(a, b)
        if not there:
            return False, cost
        back, more = await self._follows(b, a)
        return back, cost + more

    async def _follows(self, given: str, claim: str) -> tuple[bool, Cost]:
        body = {
            "model": self.engine.model,
            "messages": entailment_messages(self.question, given, claim),
            "max_tokens": self.prompt.generated,
            "temperature": 0,
            "structured_outputs": {"choice": [YES, NO]},
            "chat_template_kwargs": {"enable_thinking": False},
            **self.fields,
            **self.prompt.truncation(2 * ANSWER_TOKENS),
        }
        response = await _posted(self.engine, "/v1/chat/completions", body)
        try:
            said = response["choices"][0]["message"]["content"].strip().lower()
            cost = self.prompt.settle(2 * ANSWER_TOKENS, response["usage"])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise MeaningFailed(f"the judge {self.engine.model!r} does not answer as a chat completion") from error
        if not said or not (YES.startswith(said) or NO.startswith(said)):
            raise MeaningFailed(f"the judge {self.engine.model!r} answered neither {YES} nor {NO}: {said[:20]!r}")
        return YES.startswith(said), cost


@dataclass(frozen=True, slots=True)
class Embedding:
    """Two answers say the same if their embeddings point in nearly one direction."""

    engine: ScorerEngine
    threshold: float
    prompt: ScorerPrompt
    fields: Json

    def worst_case(self, groups: int) -> Cost:
        return self.prompt.worst_case(ANSWER_TOKENS)

    async def read(self, answer: str) -> tuple[list[float], Cost]:
        body = {
            "model": self.engine.model,
            "input": answer[-ANSWER_CHARACTERS:],
            **self.fields,
            **self.prompt.truncation(ANSWER_TOKENS),
        }
        response = await _posted(self.engine, "/v1/embeddings", body)
        try:
            vector = list(map(float, response["data"][0]["embedding"]))
            cost = self.prompt.settle(ANSWER_TOKENS, response["usage"])
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            message = f"the model {self.engine.model!r} does not answer as vLLM's /v1/embeddings"
            raise MeaningFailed(message) from error
        length = sqrt(sum(map(mul, vector, vector)))
        if not isfinite(length) or length == 0:
            raise MeaningFailed(f"the embedding of {self.engine.model!r} has the length {length}")
        return [component / length for component in vector], cost

    async def same(self, a: list[float], b: list[float]) -> tuple[bool, Cost]:
        return sum(map(mul, a, b)) >= self.threshold, ZERO


def entailment_messages(question: str, given: str, claim: str) -> list[Json]:
    """What the judge reads. Instructions stand last: they survive where a long prompt is cut off at its start."""
    content = (
        f"Question:\n{question}\n\nAnswer A:\n{given}\n\nAnswer B:\n{claim}\n\n"
        f"If A is true as a reply to the question, is all that B says true too? Reply with {YES} or {NO} only."
    )
    return [{"role": "user", "content": content}]


async def meaning_of(stated: JudgeMeaning | EmbeddingMeaning, context: ScorerContext) -> Meaning:
    """Raises ScorerRefused, and what the engine's choice raises."""
    engine = context.engine(stated.model or context.model)
    make: Callable[[Any, ScorerEngine, ScorerContext], Awaitable[Meaning]] = (
        _entailment if isinstance(stated, JudgeMeaning) else _embedding
    )
    return await make(stated, engine, context)


async def _entailment(stated: JudgeMeaning, engine: ScorerEngine, context: ScorerContext) -> Meaning:
    asked = question(context.messages)
    frame: Json = {"model": engine.model, "messages": entailment_messages(asked, "", "")}
    prompt = ScorerPrompt(engine.price, await engine.upstream.count_tokens(frame), 1, engine.context)
    prompt.check_room(engine.model)
    return Entailment(engine, asked, prompt, context.fields)


async def _embedding(stated: EmbeddingMeaning, engine: ScorerEngine, context: ScorerContext) -> Meaning:
    return Embedding(engine, stated.threshold, ScorerPrompt(engine.price, 0, 0, engine.context), context.fields)


async def _posted(engine: ScorerEngine, path: str, body: Json) -> Json:
    try:
        return await engine.upstream.post(path, body)
    except (EngineRejected, EngineUnavailable) as error:
        raise MeaningFailed(f"{engine.model!r} compared no answers: {error}") from error
