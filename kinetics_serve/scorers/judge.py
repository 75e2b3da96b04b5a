"""A language model as the judge: it grades the sample with one digit."""

from dataclasses import dataclass
from math import exp
from typing import Annotated, Any, Literal

from pydantic import Field

from kinetics_serve.cost import Cost
from kinetics_serve.engine.errors import EngineRejected, EngineUnavailable
from kinetics_serve.engine.upstream import Json, Upstream
from kinetics_serve.scorers.reward_model import question
from kinetics_serve.scorers.scorer import Score, ScorerFailed, ScorerPrompt
from kinetics_serve.scorers.spec import ScorerContext, ScorerOptions, ScorerSpec

GRADES = [str(grade) for grade in range(1, 10)]
GENERATED_TOKENS = 1
CRITERIA = "Is the answer correct, and does it do what was asked?"


class JudgeScorer(ScorerOptions):
    """A language model grades the answer; by default, the one that gave it."""

    kind: Literal["judge"]
    model: str | None = Field(default=None, examples=["Qwen3-8B"])
    criteria: Annotated[str, Field(min_length=1, max_length=4000)] = CRITERIA


@dataclass(frozen=True, slots=True)
class Judge:
    """The score is the grade that the judge's own probabilities expect (G-Eval, arXiv 2303.16634), from 1 to 9: one
    token is generated, and yet close samples differ.
    """

    upstream: Upstream
    model: str
    messages: list[Json]
    criteria: str
    prompt: ScorerPrompt
    fields: Json

    def worst_case(self, tokens: int) -> Cost:
        return self.prompt.worst_case(tokens)

    async def score(self, text: str, answer: str | None, tokens: int) -> Score:
        body = {
            "model": self.model,
            "messages": judge_messages(self.messages, text, self.criteria),
            "max_tokens": GENERATED_TOKENS,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 20,
            "structured_outputs": {"choice": GRADES},
            "chat_template_kwargs": {"enable_thinking": False},
            **self.fields,
            **self.prompt.truncation(tokens),
        }
        try:
            response = await self.upstream.post("/v1/chat/completions", body)
        except (EngineRejected, EngineUnavailable) as error:
            raise ScorerFailed(f"the judge {self.model!r} gave no grade: {error}") from error
        try:
            value = expected_grade(response["choices"][0])
            return Score(value, self.prompt.settle(tokens, response["usage"]))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ScorerFailed(f"the judge {self.model!r} answered without a grade from 1 to 9") from error


def judge_messages(messages: list[Json], text: str, criteria: str) -> list[Json]:
    """What the judge reads. Instructions stand last: they survive where a long prompt is cut off at its start."""
    content = (
        f"Question:\n{question(messages)}\n\nAnswer:\n{text}\n\n"
        f"Grade the answer with one digit from 1 (worst) to 9 (best). {criteria} Reply with the digit only."
    )
    return [{"role": "user", "content": content}]


def expected_grade(choice: Json) -> float:
    """The mean grade under the first token's probabilities; the token itself where none of them is a grade.

    Raises ValueError and the like where there is no grade at all.
    """
    tokens: list[Json] = (choice.get("logprobs") or {}).get("content") or []
    candidates: list[Any] = tokens[0].get("top_logprobs") or [] if tokens else []
    weights: dict[int, float] = {}
    for candidate in candidates:
        if candidate["token"].strip() in GRADES:
            grade = int(candidate["token"])
            weights[grade] = weights.get(grade, 0.0) + exp(candidate["logprob"])
    total = sum(weights.values())
    if total > 0:
        return sum(grade * weight for grade, weight in weights.items()) / total
    return float(GRADES.index(choice["message"]["content"].strip()) + 1)


async def _make(options: JudgeScorer, context: ScorerContext) -> Judge:
    engine = context.engine(options.model or context.model)
    asked: Json = {"model": engine.model, "messages": judge_messages(context.messages, "", options.criteria)}
    frame_tokens = await engine.upstream.count_tokens(asked)
    prompt = ScorerPrompt(engine.price, frame_tokens, GENERATED_TOKENS, engine.context)
    prompt.check_room(engine.model)
    return Judge(engine.upstream, engine.model, context.messages, options.criteria, prompt, context.fields)


SPEC = ScorerSpec("judge", JudgeScorer, _make)
