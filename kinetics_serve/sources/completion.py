"""Puts one sample's streamed chunks together again, for chat and for plain completions."""

from collections.abc import Iterable
from typing import Any

from kinetics_serve.engine.chunks import BRIEF, WITH_LOGPROBS, AnyChunk, CallPiece, Choice, Decoder, Logprobs
from kinetics_serve.strategies.confidence import MIN_WINDOW_TOKENS, TOP_LOGPROBS, Confidence

Json = dict[str, Any]

MAX_TOP_LOGPROBS = 20
"""vLLM's limit, and OpenAI's."""


class Completion:
    """What the two kinds of completion share: token counts, how it ended, the model's confidence.

    top_logprobs: how many candidates per token the client asked for; None if it asked for no log-probabilities.
    window: tokens of a group, see strategies.confidence. shows_reasoning: to the client, together with the
    log-probabilities that would tell of it.
    """

    path: str

    def __init__(self, top_logprobs: int | None, window: int = MIN_WINDOW_TOKENS, shows_reasoning: bool = True) -> None:
        self.top_logprobs = top_logprobs
        self.shows_reasoning = shows_reasoning
        self.tokens = 0
        self.pieces = 0
        """Chunks that said something."""
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.finish_reason: str | None = None
        self.stop_reason: Any = None
        self.overran = False
        """The server went on beyond its max_tokens."""
        self.confidence = Confidence(window)

    @property
    def decoder(self) -> Decoder:
        """Of the chunks that it takes in."""
        return BRIEF if self.top_logprobs is None else WITH_LOGPROBS

    @property
    def least_tokens(self) -> int:
        """As many tokens at least came, where a server counts none: a chunk's, or all with log-probabilities in it."""
        return max(self.pieces, self.confidence.tokens)

    @property
    def wanted_logprobs(self) -> int:
        """Candidates per token to ask the engine for."""
        return min(max(TOP_LOGPROBS + 1, self.top_logprobs or 0), MAX_TOP_LOGPROBS)

    def add(self, chunk: AnyChunk) -> None:
        """Takes in the next chunk of the stream. Raises ValueError where its log-probabilities make no sense."""
        usage = chunk.usage
        if usage is not None:
            self.tokens = max(self.tokens, usage.completion_tokens or 0)
            self.prompt_tokens = max(self.prompt_tokens, usage.prompt_tokens)
            details = usage.prompt_tokens_details
            self.cached_tokens = (details and details.cached_tokens) or 0
        for choice in chunk.choices:
            try:
                self.pieces += self._add_choice(choice)
            except (ArithmeticError, AttributeError, TypeError) as error:
                raise ValueError("log-probabilities of another shape") from error
            if choice.finish_reason:
                self.finish_reason = choice.finish_reason
                self.stop_reason = choice.stop_reason

    def cut(self, max_tokens: int) -> None:
        """Ends it where the server goes on beyond its max_tokens."""
        self.overran = True
        self.tokens = max_tokens
        self.finish_reason, self.stop_reason = "length", None

    @property
    def text(self) -> str:
        """What the sample says, without its reasoning."""
        raise NotImplementedError

    @property
    def transcript(self) -> str:
        """What it generated, its thinking included and closed."""
        text = self.text
        return f"{text}\n</think>" if "<think>" in text and "</think>" not in text else text

    def tail(self, characters: int) -> str:
        """The last characters of what it says, or while it thinks, of what it thinks. As cheap as they are few."""
        raise NotImplementedError

    def extend(self, text: str) -> None:
        """Adds to its text what was generated elsewhere."""
        raise NotImplementedError

    @property
    def tool_calls(self) -> list[Json]:
        """The functions that it calls, as in an OpenAI message."""
        return []

    def choice(self) -> Json:
        """The sample as `choices[0]` of a response that is not streamed."""
        raise NotImplementedError

    def deltas(self) -> list[Json]:
        """The sample as the choices of a stream's chunks: all its text, then how it ended."""
        raise NotImplementedError

    @property
    def silent(self) -> bool:
        """It says nothing at all, not even a thought."""
        return not (self.text or self.tool_calls)

    def _add_choice(self, choice: Choice[Any]) -> bool:
        """Whether there was something in it."""
        raise NotImplementedError

    def _ending(self) -> Json:
        # A sample that was stopped, by a deadline for example, has no reason of its own.
        return {"finish_reason": self.finish_reason or "length", "stop_reason": self.stop_reason}

    def _add_confidence(self, logprobs: Iterable[float | None]) -> None:
        # vLLM lists the sampled token among the candidates even where it is not one of the likeliest.
        self.confidence.add(sorted([each for each in logprobs if each is not None], reverse=True)[:TOP_LOGPROBS])


class ChatCompletion(Completion):
    path = "/v1/chat/completions"

    def __init__(self, top_logprobs: int | None, window: int = MIN_WINDOW_TOKENS, shows_reasoning: bool = True) -> None:
        super().__init__(top_logprobs, window, shows_reasoning)
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._tool_calls: dict[int, Json] = {}
        self._logprobs: list[Json] = []

    @property
    def text(self) -> str:
        return "".join(self._content)

    @property
    def transcript(self) -> str:
        reasoning = "".join(self._reasoning)
        return f"<think>\n{reasoning}\n</think>\n\n{self.text}" if reasoning else super().transcript

    @property
    def silent(self) -> bool:
        return super().silent and not (self._reasoning or self._refusal)

    def tail(self, characters: int) -> str:
        return _tail(self._content or self._shown_reasoning, characters)

    def extend(self, text: str) -> None:
        self._content.append(text)

    @property
    def tool_calls(self) -> list[Json]:
        return [call for _, call in sorted(self._tool_calls.items())]

    def choice(self) -> Json:
        return {
            "index": 0,
            "message": self._message(),
            "logprobs": self._shown_logprobs,
            **self._ending(),
        }

    def deltas(self) -> list[Json]:
        delta = self._message()
        for index, call in enumerate(delta.get("tool_calls", ())):
            call["index"] = index
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        if (logprobs := self._shown_logprobs) is not None:
            choice["logprobs"] = logprobs
        return [choice, {"index": 0, "delta": {}, **self._ending()}]

    @property
    def _shown_reasoning(self) -> list[str]:
        return self._reasoning if self.shows_reasoning else []

    @property
    def _shown_logprobs(self) -> Json | None:
        hidden = self.top_logprobs is None or self._shown_reasoning != self._reasoning
        return None if hidden else {"content": self._logprobs}

    def _message(self) -> Json:
        message: Json = {"role": "assistant", "content": self.text}
        if self._shown_reasoning:
            message["reasoning"] = message["reasoning_content"] = "".join(self._shown_reasoning)
        if self._refusal:
            message["refusal"] = "".join(self._refusal)
            message["content"] = self.text or None
        if self._tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
            message["content"] = self.text or None
        return message

    def _add_choice(self, choice: Choice[Any]) -> bool:
        logprobs = choice.logprobs
        if isinstance(logprobs, Logprobs):
            for token in logprobs.content or ():
                self._add_confidence([each.logprob for each in token.top_logprobs or (token,)])
        elif logprobs:
            self._add_logprobs(logprobs)
        delta = choice.delta
        if delta is None:
            return False
        reasoning = delta.reasoning or delta.reasoning_content
        for said, parts in (
            (delta.content, self._content),
            (reasoning, self._reasoning),
            (delta.refusal, self._refusal),
        ):
            if said:
                parts.append(said)
        for call in delta.tool_calls or ():
            self._add_tool_call(call)
        return bool(delta.content or reasoning or delta.refusal or delta.tool_calls)

    def _add_logprobs(self, logprobs: Json) -> None:
        for token in logprobs.get("content") or ():
            candidates = token.get("top_logprobs") or [token]
            self._add_confidence([candidate.get("logprob") for candidate in candidates])
            self._logprobs.append({**token, "top_logprobs": candidates[: self.top_logprobs]})

    def _add_tool_call(self, piece: CallPiece) -> None:
        new = {"type": "function", "function": {"name": "", "arguments": ""}}
        call = self._tool_calls.setdefault(piece.index, new)
        if piece.id:
            call["id"] = piece.id
        if piece.function is not None:
            call["function"]["name"] += piece.function.name or ""
            call["function"]["arguments"] += piece.function.arguments or ""


class TextCompletion(Completion):
    path = "/v1/completions"

    def __init__(self, top_logprobs: int | None, window: int = MIN_WINDOW_TOKENS, shows_reasoning: bool = True) -> None:
        super().__init__(top_logprobs, window, shows_reasoning)
        self._text: list[str] = []
        self._logprobs: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }

    @property
    def text(self) -> str:
        return "".join(self._text)

    def tail(self, characters: int) -> str:
        return _tail(self._text, characters)

    def extend(self, text: str) -> None:
        self._text.append(text)

    def choice(self) -> Json:
        logprobs = self._logprobs if self.top_logprobs is not None else None
        return {"index": 0, "text": self.text, "logprobs": logprobs, **self._ending()}

    def deltas(self) -> list[Json]:
        text = self.choice() | {"finish_reason": None, "stop_reason": None}
        return [text, {"index": 0, "text": "", **self._ending()}]

    def _add_choice(self, choice: Choice[Any]) -> bool:
        if choice.text:
            self._text.append(choice.text)
        logprobs = choice.logprobs
        if isinstance(logprobs, Logprobs):
            for candidates in logprobs.top_logprobs or ():
                self._add_confidence((candidates or {}).values())
        elif logprobs:
            for candidates in logprobs.get("top_logprobs") or ():
                self._add_confidence((candidates or {}).values())
            for key, values in self._logprobs.items():
                values += [self._trimmed(value) for value in logprobs.get(key) or ()]
        return bool(choice.text)

    def _trimmed(self, value: Any) -> Any:
        """Only the candidates that the client asked for; other values as they are."""
        if not isinstance(value, dict):
            return value
        best = sorted(value.items(), key=lambda item: -item[1])[: self.top_logprobs]
        return dict(best)


def _tail(pieces: list[str], characters: int) -> str:
    """None of the pieces is empty."""
    return "".join(pieces[-characters:])[-characters:]
