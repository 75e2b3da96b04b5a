"""What people see while a server starts, and when it has."""

import shlex
import time
from collections.abc import Callable

import orjson

from kinetics_serve.commands.settings.options import Options
from kinetics_serve.commands.terminal import errors
from kinetics_serve.engine.embedded.phases import Progress

LINE_EVERY_S = 15.0
PROGRESS_EVERY_S = 30.0


class StartProgress:
    """Shows how far the engine's start is: a line for each phase. On a terminal the last one counts the seconds;
    elsewhere a phase that takes long is said again.
    """

    def __init__(self) -> None:
        self._phase = ""
        self._said_at = 0.0

    def __call__(self, progress: Progress) -> None:
        live = errors.is_terminal
        new = progress.phase != self._phase
        if not new and progress.seconds < self._said_at + (1.0 if live else LINE_EVERY_S):
            return
        if new and live and self._phase:
            errors.print()  # what was there stays
        self._phase, self._said_at = progress.phase, progress.seconds
        unfinished = live and progress.phase != "ready"
        errors.print(f"engine: {progress.phase} ({progress.seconds:.0f} s)", end="\r" if unfinished else "\n")


class Lines:
    """How far a long command is, where its output is no terminal: a line every half minute."""

    def __init__(self, name: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._say = say
        self._clock = clock
        self._began = self._said = clock()
        self._first: int | None = None

    def __call__(self, done: int, of: int, tokens: int = 0) -> None:
        """done: of `of` parts. tokens: generated since the command began."""
        now = self._clock()
        if self._first is None:  # what an earlier run had done says nothing of this one's speed
            self._first = done
        if now - self._said < PROGRESS_EVERY_S:
            return
        self._said = now
        seconds = now - self._began
        line = f"{self._name}: {done} of {of}"
        if tokens:
            line += f", {tokens / seconds:.0f} tokens/s"
        if done > self._first:
            line += f", {seconds / (done - self._first) * (of - done) / 60:.1f} minutes left"
        self._say(line)


def show_model_progress(phase: str, fraction: float | None) -> None:
    if phase != "done":
        part = "" if fraction is None else f" {fraction:4.0%}"
        errors.print(f"bundled model: {phase}{part}", end="\r" if errors.is_terminal else "\n")


def ready_line(options: Options) -> str:
    """That the server answers, with a request to paste."""
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(options.host, options.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{options.port}"
    key = ' -H "authorization: Bearer $KEY"' if options.ledger is not None else ""
    body = {
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 100,
        "kinetics": {"budget": {"samples": 4}},
    }
    return (
        f"ready: {url}, documents at {url}/docs. Try:\n"
        f"  curl {url}/v1/chat/completions -H 'content-type: application/json'{key} \\\n"
        f"    -d {shlex.quote(orjson.dumps(body).decode())}"
    )
