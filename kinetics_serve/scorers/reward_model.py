"""A reward model that a vLLM server runs: it reads the conversation with the sample as its last turn."""

from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from pydantic import Field

from kinetics_serve.cost import Cost
from kinetics_serve.engine.errors import EngineRejected, EngineUnavailable
from kinetics_serve.engine.upstream import Json, Upstream
from kinetics_serve.scorers.scorer import Score, ScorerFailed, ScorerPrompt
from kinetics_serve.scorers.spec import ScorerContext, ScorerOptions, ScorerSpec

Api = Literal["classify", "pooling", "score"]
"""vLLM's routes: `classify` for sequence classifiers, `pooling` for reward heads, `score` for cross-encoders."""


class RewardModelScorer(ScorerOptions):
    """A reward model that one of the upstreams serves, by vLLM's route of that name."""

    kind: Literal["reward_model"]
    model: str = Field(examples=["Skywork-Reward-V2-Qwen3-0.6B"])
    api: Api = "classify"


@dataclass(frozen=True, slots=True)
class RewardModel:
    """The score is what the model says of the conversation with the sample."""

    upstream: Upstream
    model: str
    api: Api
    messages: list[Json]
    """The conversation up to the sample."""
    prompt: ScorerPrompt
    fields: Json
    """Of every request, such as a cache_salt."""

    def worst_case(self, tokens: int) -> Cost:
        return self.prompt.worst_case(tokens)

    async def score(self, text: str, answer: str | None, tokens: int) -> Score:
        body = {"model": self.model, **self.fields, **self.prompt.truncation(tokens), **self._input(text)}
        try:
            response = await self.upstream.post(f"/{self.api}", body)
        except (EngineRejected, EngineUnavailable) as error:
            raise ScorerFailed(f"the reward model {self.model!r} gave no score: {error}") from error
        try:
            value = self._value(response["data"][0])
            cost = self.prompt.settle(tokens, response["usage"])
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise ScorerFailed(f"the reward model {self.model!r} does not answer as vLLM's /{self.api}") from error
        return Score(value, cost)

    def _input(self, text: str) -> Json:
        if self.api == "score":
            return {"queries": question(self.messages), "documents": text}
        return {"messages": [*self.messages, {"role": "assistant", "content": text}], "add_generation_prompt": False}

    def _value(self, data: Json) -> float:
        """A classifier's last class, a reward head's last token: where there is but one, that."""
        found: Any = {"classify": data.get("probs"), "pooling": data.get("data"), "score": data.get("score")}[self.api]
        while isinstance(found, list):
            found = found[-1]
        value = float(found)
        if not isfinite(value):
            raise ValueError(f"a score of {value}")
        return value


def question(messages: list[Json]) -> str:
    """The text of the last message that a user wrote."""
    last = next((message for message in reversed(messages) if message["role"] == "user"), messages[-1])
    content = last.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)


async def _make(options: RewardModelScorer, context: ScorerContext) -> RewardModel:
    engine = context.engine(options.model)
    messages = context.messages
    asked: Json = {"prompt": question(messages)} if options.api == "score" else {"messages": messages}
    frame_tokens = await engine.upstream.count_tokens({"model": engine.model, **asked})
    prompt = ScorerPrompt(engine.price, frame_tokens, 0, engine.context)
    prompt.check_room(engine.model)
    return RewardModel(engine.upstream, engine.model, options.api, messages, prompt, context.fields)


SPEC = ScorerSpec("reward_model", RewardModelScorer, _make)
