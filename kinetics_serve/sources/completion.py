"""Puts one sample's streamed chunks together again, for chat and for plain completions."""

from collections.abc import Iterable
from typing import Any

from kinetics_serve.strategies.confidence import MIN_WINDOW_TOKENS, TOP_LOGPROBS, Confidence

Json = dict[str, Any]

MAX_TOP_LOGPROBS = 20
"""vLLM's limit, and OpenAI's."""


class Completion:
    """What the two kinds of completion share: token counts, how it ended, the model's confidence.

    top_logprobs: how many candidates per token the client asked for; None if it asked for no log-probabilities.
    window: tokens of a group, see strategies.confidence.
    """

    path: str

    def __init__(self, top_logprobs: int | None, window: int = MIN_WINDOW_TOKENS) -> None:
        self.top_logprobs = top_logprobs
        self.tokens = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.finish_reason: str | None = None
        self.stop_reason: Any = None
        self.confidence = Confidence(window)

    @property
    def wanted_logprobs(self) -> int:
        """Candidates per token to ask the engine for."""
        return min(max(TOP_LOGPROBS + 1, self.top_logprobs or 0), MAX_TOP_LOGPROBS)

    def add(self, chunk: Json) -> None:
        """Takes in the next chunk of the stream."""
        usage = chunk.get("usage")
        if usage:
            self.tokens = usage["completion_tokens"] or 0
            self.prompt_tokens = usage["prompt_tokens"]
            details = usage.get("prompt_tokens_details") or {}
            self.cached_tokens = details.get("cached_tokens") or 0
        for choice in chunk.get("choices", ()):
            self._add_choice(choice)
            if choice.get("finish_reason") is not None:
                self.finish_reason = choice["finish_reason"]
                self.stop_reason = choice.get("stop_reason")

    @property
    def text(self) -> str:
        """What the sample says, without its reasoning."""
        raise NotImplementedError

    @property
    def transcript(self) -> str:
        """What it generated, its thinking included and closed."""
        text = self.text
        return f"{text}\n</think>" if "<think>" in text and "</think>" not in text else text

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

    def _add_choice(self, choice: Json) -> None:
        raise NotImplementedError

    def _ending(self) -> Json:
        # A sample that was stopped by a deadline has none of its own.
        return {"finish_reason": self.finish_reason or "length", "stop_reason": self.stop_reason}

    def _add_confidence(self, logprobs: Iterable[float | None]) -> None:
        # vLLM lists the sampled token among the candidates even where it is not one of the likeliest.
        self.confidence.add(sorted([each for each in logprobs if each is not None], reverse=True)[:TOP_LOGPROBS])


class ChatCompletion(Completion):
    path = "/v1/chat/completions"

    def __init__(self, top_logprobs: int | None, window: int = MIN_WINDOW_TOKENS) -> None:
        super().__init__(top_logprobs, window)
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, Json] = {}
        self._logprobs: list[Json] = []

    @property
    def text(self) -> str:
        return "".join(self._content)

    @property
    def transcript(self) -> str:
        reasoning = "".join(self._reasoning)
        return f"<think>\n{reasoning}\n</think>\n\n{self.text}" if reasoning else super().transcript

    def extend(self, text: str) -> None:
        self._content.append(text)

    @property
    def tool_calls(self) -> list[Json]:
        return [call for _, call in sorted(self._tool_calls.items())]

    def choice(self) -> Json:
        return {
            "index": 0,
            "message": self._message(),
            "logprobs": {"content": self._logprobs} if self.top_logprobs is not None else None,
            **self._ending(),
        }

    def deltas(self) -> list[Json]:
        delta = self._message()
        for index, call in enumerate(delta.get("tool_calls", ())):
            call["index"] = index
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        if self.top_logprobs is not None:
            choice["logprobs"] = {"content": self._logprobs}
        return [choice, {"index": 0, "delta": {}, **self._ending()}]

    def _message(self) -> Json:
        message: Json = {"role": "assistant", "content": self.text}
        if self._reasoning:
            message["reasoning"] = message["reasoning_content"] = "".join(self._reasoning)
        if self._tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
            message["content"] = self.text or None
        return message

    def _add_choice(self, choice: Json) -> None:
        delta = choice.get("delta") or {}
        if delta.get("content"):
            self._content.append(delta["content"])
        reasoning = delta.get("reasoning") or delta.get("reasoning_content")
        if reasoning:
            self._reasoning.append(reasoning)
        for call in delta.get("tool_calls") or ():
            self._add_tool_call(call)
        for token in (choice.get("logprobs") or {}).get("content") or ():
            candidates = token.get("top_logprobs") or [token]
            self._add_confidence([candidate.get("logprob") for candidate in candidates])
            if self.top_logprobs is not None:
                self._logprobs.append({**token, "top_logprobs": candidates[: self.top_logprobs]})

    def _add_tool_call(self, piece: Json) -> None:
        function = {"name": "", "arguments": ""}
        call = self._tool_calls.setdefault(piece["index"], {"type": "function", "function": function})
        if piece.get("id"):
            call["id"] = piece["id"]
        for key, value in (piece.get("function") or {}).items():
            if value:
                call["function"][key] = call["function"].get(key, "") + value


class TextCompletion(Completion):
    path = "/v1/completions"

    def __init__(self, top_logprobs: int | None, window: int = MIN_WINDOW_TOKENS) -> None:
        super().__init__(top_logprobs, window)
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

    def extend(self, text: str) -> None:
        self._text.append(text)

    def choice(self) -> Json:
        logprobs = self._logprobs if self.top_logprobs is not None else None
        return {"index": 0, "text": self.text, "logprobs": logprobs, **self._ending()}

    def deltas(self) -> list[Json]:
        text = self.choice() | {"finish_reason": None, "stop_reason": None}
        return [text, {"index": 0, "text": "", **self._ending()}]

    def _add_choice(self, choice: Json) -> None:
        self._text.append(choice.get("text") or "")
        logprobs = choice.get("logprobs") or {}
        for candidates in logprobs.get("top_logprobs") or ():
            self._add_confidence((candidates or {}).values())
        if self.top_logprobs is not None:
            for key, values in self._logprobs.items():
                values += [self._trimmed(value) for value in logprobs.get(key) or ()]

    def _trimmed(self, value: Any) -> Any:
        """Only the candidates that the client asked for; other values as they are."""
        if not isinstance(value, dict):
            return value
        best = sorted(value.items(), key=lambda item: -item[1])[: self.top_logprobs]
        return dict(best)
