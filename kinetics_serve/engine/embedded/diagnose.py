"""Why an embedded engine could not start, from what it logged, and what to do about it."""

import re
from collections.abc import Sequence
from pathlib import Path

LOG_TAIL_LINES = 50


class EngineError(Exception):
    """Why the engine could not start, and what to do."""

    def __init__(self, message: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log_tail = list(log_tail)
        """The last lines of its log, oldest first."""


class PortTakenError(EngineError):
    """Somebody else listens on our port."""


def check_model_folder(model: str) -> None:
    """Raises EngineError for a path that holds no model: vLLM would find out after half a minute."""
    path = Path(model)
    if model.startswith(("/", "./", "../", "~")) and not path.exists():
        raise EngineError(f"Model not found: there is no {model}. Pass a model folder or a hub name to --model.")
    if path.is_dir() and not any((path / name).exists() for name in ("config.json", "params.json")):
        raise EngineError(
            f"Model not found: the folder {model} has no config.json. "
            "Expected a model in safetensors format, as save_pretrained writes it."
        )


# From the most to the least telling: a failure in one of vLLM's processes shows in the logs of others too.
REASONS = (
    (
        r"No module named 'vllm'",
        "vLLM is not installed for {python}. Install it with: pip install 'kinetics-serve[cpu]', "
        "or 'kinetics-serve[cuda]' on a machine with an NVIDIA GPU.",
    ),
    (r"guardian: cannot run", "The engine's Python, {python}, cannot be run: {line}."),
    (
        r"unrecognized arguments|error: argument|error: ambiguous option",
        "vLLM does not accept its arguments: {line}. Check the engine arguments.",
    ),
    (r"^Value error, ", "vLLM does not accept its configuration: {line}. Check the engine arguments."),
    (
        r"gated repo|GatedRepoError|401 Client Error|403 Client Error",
        "The model hub refuses access to {model}: {line}. Accept the model's licence there and set HF_TOKEN.",
    ),
    (
        r"RepositoryNotFoundError|Repository Not Found|is not a local folder and is not a valid model"
        r"|Invalid repository ID or local directory|does not appear to have a file named config\.json"
        r"|HFValidationError",
        "Model not found: {model} is neither a model folder with a config.json nor a name on the model hub.",
    ),
    (
        r"LocalEntryNotFoundError|couldn't connect to|OfflineModeIsEnabled|Cannot reach|offline mode"
        r"|Temporary failure in name resolution|Name or service not known|ConnectError|Max retries exceeded",
        "The model hub cannot be reached for {model}. Check the network, or pass a model folder as --model.",
    ),
    (
        r"larger than the maximum number of tokens that can be stored|larger than the available KV cache memory"
        r"|No available memory for the cache blocks|No available KV cache memory",
        "The KV cache is too small for the model's context: {line}. "
        "Raise --kv-cache-memory-bytes (or --gpu-memory-utilization), or lower --max-model-len.",
    ),
    (
        r"out of memory|OutOfMemoryError|MemoryError|can't allocate memory|Cannot allocate memory"
        r"|is less than (requested memory|desired)",
        "Out of memory: {line}. Use a smaller model, lower --kv-cache-memory-bytes, or free memory.",
    ),
)
VLLM_ADVICE = re.compile(
    r" Try increasing| See https| To resolve| Decrease --| \[type="
)  # it may name other options than ours
PORT_TAKEN = re.compile(r"[Aa]ddress already in use")

# "(EngineCore pid=7) ERROR 11-23 22:36:58 [core.py:133] "
LOG_PREFIX = re.compile(r"^(\([^()]* pid=\d+\) ?)?([A-Z]+ \d\d-\d\d [\d:]+ \[[^\]]*\] ?)?")
ERROR = re.compile(r"^(\S+: )?error: |^[\w.]*(Error|Exception|Interrupt)\b|\bfatal\b", re.IGNORECASE)
ERROR_LEVEL = re.compile(r"^(\([^()]* pid=\d+\) ?)?(ERROR|CRITICAL) ")
SECOND_HAND = re.compile(r"See root cause above|EngineDeadError|WorkerProc initialization failed")


def explain(lines: Sequence[str], status: int, model: str, python: str, stopped: bool = False) -> EngineError:
    """Why an engine that ended with `status` after logging `lines` did not start."""
    if stopped:
        return EngineError("The engine was stopped before it was ready.", tail(lines))
    messages = [LOG_PREFIX.sub("", line).strip() for line in lines]
    for message in messages:
        if PORT_TAKEN.search(message):
            return PortTakenError(f"The engine's port was taken by another program: {message}.", tail(lines))
    for pattern, sentence in REASONS:
        for message in messages:
            if re.search(pattern, message):
                line = VLLM_ADVICE.split(message)[0].rstrip(". ")
                return EngineError(sentence.format(model=model, python=python, line=line), tail(lines))
    if status == 128 + 9:
        return EngineError(
            "The engine was killed, most likely because the machine is out of memory. "
            "Use a smaller model or lower --kv-cache-memory-bytes.",
            tail(lines),
        )
    reason = last_error(lines) or next((message for message in reversed(messages) if message), "it logged nothing")
    return EngineError(f"The engine ended before it was ready ({describe_status(status)}): {reason}", tail(lines))


def last_error(lines: Sequence[str]) -> str | None:
    """The last line that names an exception, else the last of level ERROR; without vLLM's prefix."""
    messages = [LOG_PREFIX.sub("", line).strip() for line in lines]
    errors = [message for message in messages if ERROR.search(message) and not SECOND_HAND.search(message)]
    errors = errors or [LOG_PREFIX.sub("", line).strip() for line in lines if ERROR_LEVEL.search(line)]
    return errors[-1] if errors else None


def describe_status(status: int) -> str:
    return f"signal {status - 128}" if status > 128 else f"exit status {status}"


def tail(lines: Sequence[str]) -> list[str]:
    return list(lines)[-LOG_TAIL_LINES:]
