"""How far the start of a vLLM server is, by what it logs."""

import re
from dataclasses import dataclass

FIRST = "importing vLLM"
READY = "ready"

_PHASES = (
    (re.compile(r"non-default args"), "reading the model's configuration"),
    (re.compile(r"Initializing a V1 LLM engine"), "starting the engine's processes"),
    (re.compile(r"Starting to load model|Loading safetensors|Loading weights"), "loading the model"),
    (re.compile(r"Dynamo bytecode|Compiling a graph"), "compiling"),
    (re.compile(r"GiB for KV cache|Available KV cache|Capturing CUDA graph"), "preparing the KV cache"),
    (re.compile(r"KV cache size|Warming up model"), "warming up"),
    (re.compile(r"init engine .* took|Starting vLLM server on"), "starting the HTTP server"),
)
"""What vLLM 0.32 logs at the start of each."""

NOISE = re.compile(r"^nanobind: |^ - (leaked |\.\.\. skipped)|^See https://nanobind|resource_tracker")
"""The interpreter's farewell in every process of vLLM: it says nothing, in a hundred lines."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a start that began `seconds` ago."""

    phase: str
    seconds: float


def phase_of(line: str) -> str | None:
    """The phase that begins with this line of the log; None for most lines."""
    return next((phase for pattern, phase in _PHASES if pattern.search(line)), None)
