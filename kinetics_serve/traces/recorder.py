"""Recording trials, one after another, into a file that may have some already."""

import fcntl
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kinetics_serve.traces.traces import Json, Metadata, TracesError, Trial, lines_of

LOWS_DIGITS = 3
"""Of a group confidence, in nats: what decides is a quantile of many."""


class Recorder:
    """Appends trials to a file, and knows which are there already.

    A line that an interruption cut in two is dropped. Raises TracesError where the file holds the trials of other
    metadata, or another process is adding to it.
    """

    def __init__(self, path: Path, metadata: Metadata) -> None:
        self.path = path
        self.done: set[tuple[str, int]] = set()
        self.labels: dict[str, list[str]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise TracesError(f"another run is recording into {path}: wait for it, or record elsewhere") from None
        _drop_partial_line(path)
        lines = lines_of(path)
        _, header = next(lines, (0, None))
        if header is None:
            self._write(metadata.as_json())
        else:
            self._check_same(header, metadata)
        for _, line in lines:
            self.done.add((line["query"], line["trial"]))
            labels = self.labels.setdefault(line["query"], [])
            if line["label"] is not None and line["label"] not in labels:
                labels.append(line["label"])

    def add(self, query: str, choices: Sequence[str], prompt_tokens: int, trial: Trial, **more: Any) -> None:
        """more: what is worth keeping beside the trial, such as the reason the engine gave for its end."""
        self._write(
            {
                "query": query,
                "choices": list(choices),
                "prediction": [trial.text],
                "score": 100.0 if trial.correct else 0.0,
                "trial": trial.number,
                "prompt_tokens": prompt_tokens,
                "tokens": trial.tokens,
                "status": trial.status.value,
                "label": trial.answer,
                "confidence": trial.confidence,
                "worst_window": trial.worst_window,
                "lows": [[token, round(confidence, LOWS_DIGITS)] for token, confidence in trial.lows],
                **more,
            }
        )
        self.done.add((query, trial.number))

    def close(self) -> None:
        self._file.close()

    def _write(self, line: Json) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def _check_same(self, header: Json, metadata: Metadata) -> None:
        wanted = json.loads(json.dumps(metadata.as_json()))
        header = {"engine": wanted["engine"]} | header  # files from before there was such a word
        other = sorted(key for key in wanted if header.get(key) != wanted[key])
        if other:
            self._file.close()
            there = ", ".join(f"{key} {header.get(key)!r:.200} instead of {wanted[key]!r:.200}" for key in other)
            raise TracesError(f"{self.path} was recorded with {there}: record into another folder")


def _drop_partial_line(path: Path) -> None:
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
