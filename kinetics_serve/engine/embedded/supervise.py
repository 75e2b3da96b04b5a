"""Starts one vLLM server on a loopback port, keeps it running, and ends it with everything it started."""

import asyncio
import codecs
import contextlib
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

log = logging.getLogger("kinetics_serve.engine")

# What `python -m vllm.entrypoints.openai.api_server` runs too, less a deprecation warning. Not `vllm serve`:
# with the CPU build it ends at once, because it asks for the metadata of a distribution named vllm.
VLLM_SERVER = ("-m", "vllm.entrypoints.launchers.api_server.entry")
GUARDIAN = (sys.executable, "-m", "kinetics_serve.engine.embedded.guardian", "--")

HEALTH_POLL_S = 0.25
HEALTH_TIMEOUT_S = 5.0
FIRST_RESTART_DELAY_S = 1.0
LONGEST_RESTART_DELAY_S = 60.0
HEALTHY_AFTER_S = 60.0
"""An engine that was ready for this long is restarted as if for the first time."""
STOP_TIMEOUT_S = 12.0
"""The guardian gives the engine five seconds from SIGTERM to SIGKILL, and the kernel as long after that."""
PORT_ATTEMPTS = 3
LOG_LINES = 400
"""Lines searched for the reason of a failure: vLLM logs a traceback in each of its processes."""
LOG_TAIL_LINES = 50

GIB = 1 << 30


class EngineError(Exception):
    """Why the engine could not start, and what to do. `log_tail`: the last lines of its log, oldest first."""

    def __init__(self, message: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log_tail = list(log_tail)


class Supervisor:
    """The embedded engine.

    model: a folder or a hub name. served_name: what clients call it. engine_args: passed to vLLM as they are;
    they win over our defaults. python: the interpreter that has vLLM. on_progress: called with a line for
    people, such as "loading weights (12 s)", whenever the start enters another phase.
    `url` stays the same over restarts; a first start that finds its port taken changes it, so read it after
    `start()`. `ready`: the engine has answered and has not ended since.
    """

    def __init__(
        self,
        model: str,
        *,
        served_name: str,
        engine_args: Sequence[str] = (),
        python: str = sys.executable,
        on_progress: Callable[[str], None] = lambda line: None,
        start_timeout_s: float = 900,
    ) -> None:
        self.model = model
        self.served_name = served_name
        self.engine_args = tuple(engine_args)
        self.python = python
        self.on_progress = on_progress
        self.start_timeout_s = start_timeout_s
        self.port = free_port()
        self.ready = False
        self._guardian: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._pid: int | None = None
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._phase = ""
        self._started_at = 0.0
        self._stopped = False
        self._launching = asyncio.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id of vLLM's API server; None when it does not run."""
        return self._pid if self._runs() else None

    async def start(self) -> None:
        """Starts the engine and returns when it answers. Raises EngineError; nothing is left running then."""
        self._stopped = False
        check_model_folder(self.model)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                return await self._launch()
            except PortTakenError:
                if attempt == PORT_ATTEMPTS:
                    raise
                self.port = free_port()

    async def watch(self) -> None:
        """Restarts the engine whenever it dies, until cancelled or stopped. For after `start()`."""
        delay = FIRST_RESTART_DELAY_S
        while not self._stopped and self._guardian is not None:
            ready_at = time.monotonic()
            status = await self._guardian.wait()
            was_ready, self.ready = self.ready, False
            if self._stopped:
                return
            if was_ready:
                log.error(
                    "The engine died (%s): %s", describe_status(status), last_error(self._lines) or "no error logged"
                )
                if time.monotonic() - ready_at >= HEALTHY_AFTER_S:
                    delay = FIRST_RESTART_DELAY_S
            log.warning("Restarting the engine in %g s", delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_RESTART_DELAY_S)
            if self._stopped:
                return
            try:
                await self._launch()
            except EngineError as error:
                if not self._stopped:
                    log.error("The engine did not come back: %s", error)

    async def stop(self) -> None:
        """Ends the engine and everything it started. Does nothing when it does not run."""
        self._stopped = True
        await self._end()
        async with self._launching:  # one that was just being spawned sees that it is not wanted
            await self._end()

    async def _launch(self) -> None:
        """One run of the engine, until it answers. Ends it again on any failure and on cancellation."""
        async with self._launching:
            await self._launch_alone()

    async def _launch_alone(self) -> None:
        self._lines.clear()
        self._phase = ""
        self._started_at = time.monotonic()
        self._enter("starting vLLM")
        if not is_free(self.port):
            raise PortTakenError(f"Port {self.port} of 127.0.0.1 is taken by another program.")
        try:
            await self._spawn()
            await self._until_healthy()
        except BaseException:
            await self._end()
            raise
        self.ready = True
        self._enter("ready")

    async def _spawn(self) -> None:
        command = engine_command(self.python, self.model, self.served_name, self.port, self.engine_args)
        log.info("Starting the engine: %s", " ".join(command))
        self._guardian = await asyncio.create_subprocess_exec(
            *GUARDIAN,
            *command,
            stdin=subprocess.PIPE,  # held open as long as we live
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=engine_environment(self.model, self.engine_args, os.environ),
            start_new_session=True,  # a Ctrl-C in our terminal is for us; we end the engine when we are done
        )
        self._pid = None
        self._reader = asyncio.create_task(self._read(self._guardian))

    async def _until_healthy(self) -> None:
        assert self._guardian is not None
        deadline = self._started_at + self.start_timeout_s
        async with httpx.AsyncClient(timeout=HEALTH_TIMEOUT_S, trust_env=False) as client:
            while time.monotonic() < deadline:
                if self._stopped or self._guardian.returncode is not None:
                    await self._end()  # so that the log is complete
                    status = await self._guardian.wait()
                    raise explain(self._lines, status, self.model, self.python, self._stopped)
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/health")).status_code == httpx.codes.OK:
                        return
                await asyncio.sleep(HEALTH_POLL_S)
        raise EngineError(
            f"The engine was not ready after {self.start_timeout_s:.0f} s (last phase: {self._phase}). "
            "A large model may need longer: raise the start timeout.",
            tail(self._lines),
        )

    async def _end(self) -> None:
        self.ready = False
        guardian, reader = self._guardian, self._reader
        if guardian is None or guardian.stdin is None:
            return
        guardian.stdin.close()  # the guardian's sign to end everything
        try:
            await asyncio.wait_for(guardian.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            log.error("The engine's guardian %d does not end: killing it", guardian.pid)
            guardian.kill()
            await guardian.wait()
        if reader is not None:
            await asyncio.wait([reader])  # not cancelled along with us

    def _runs(self) -> bool:
        return self._guardian is not None and self._guardian.returncode is None

    async def _read(self, guardian: asyncio.subprocess.Process) -> None:
        """Takes the engine's output until its end; a carriage return (progress bars) ends a line too."""
        assert guardian.stdout is not None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        while chunk := await guardian.stdout.read(1 << 16):
            *lines, rest = re.split(r"[\r\n]+", rest + decoder.decode(chunk))
            for line in lines:
                self._take(line)
        self._take(rest)

    def _take(self, line: str) -> None:
        if self._pid is None and line.isdigit():
            self._pid = int(line)  # the guardian's first line
            return
        if not line.strip():
            return
        log.debug("%s", line)
        if not NOISE.search(line):
            self._lines.append(line)
        if not self.ready:
            for pattern, phase in PHASES:
                if pattern.search(line):
                    self._enter(phase)
                    break

    def _enter(self, phase: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self.on_progress(f"{phase} ({time.monotonic() - self._started_at:.0f} s)")


# What vLLM 0.32 logs at the start of each phase.
PHASES = (
    (re.compile(r"Starting to load model|Loading safetensors|Loading weights"), "loading weights"),
    (re.compile(r"Warming up model|Dynamo bytecode|Compiling a graph"), "compiling"),
    (
        re.compile(r"GiB for KV cache|KV cache size|Available KV cache|Capturing CUDA graph"),
        "preparing the KV cache",
    ),
    (re.compile(r"Starting vLLM server on"), "starting the HTTP server"),
)

# The interpreter's farewell in every process of vLLM: it says nothing, in a hundred lines.
NOISE = re.compile(r"^nanobind: |^ - (leaked |\.\.\. skipped)|^See https://nanobind|resource_tracker")

# ----- command and environment -----


def engine_command(python: str, model: str, served_name: str, port: int, engine_args: Sequence[str]) -> tuple[str, ...]:
    ours = ("--model", model, "--served-model-name", served_name, "--host", "127.0.0.1", "--port", str(port))
    defaults = () if has_cuda_gpu() else cpu_defaults(engine_args, os.environ)
    # cached_tokens in the usage: what the prefix cache saved is not charged.
    return (python, *VLLM_SERVER, *ours, "--enable-prompt-tokens-details", *defaults, *engine_args)


def cpu_defaults(engine_args: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """vLLM options for a machine without a GPU, less those that the user has decided already."""
    named = {argument.partition("=")[0].replace("_", "-") for argument in engine_args if argument.startswith("-")}
    if "--config" in named:  # a file of options: ours would win over it
        return ()
    options: list[str] = []

    # Compiling adds more than a minute to a start, and the bundled model decoded no faster for it.
    if not named & {
        "--enforce-eager",
        "--no-enforce-eager",
        "--compilation-config",
        "-cc",
        "--optimization-level",
    }:
        options += ["--enforce-eager"]

    # vLLM would take 92 % of the machine's memory, and refuse to start where less than that is free.
    memory_options = {"--kv-cache-memory-bytes", "--gpu-memory-utilization"}
    if not named & memory_options and not environment.get("VLLM_CPU_KVCACHE_SPACE"):
        options += ["--kv-cache-memory-bytes", str(kv_cache_bytes(available_memory_bytes()))]
        # So that a model with a long context starts in a small cache: vLLM shortens the context to what fits.
        if "--max-model-len" not in named:
            options += ["--max-model-len", "auto"]

    # vLLM's 256 suit a GPU. On a CPU a step's time grows with the batch: more only makes everybody wait.
    if "--max-num-seqs" not in named:
        options += ["--max-num-seqs", "64"]

    # In vLLM 0.32 a seeded request whose prefill is split over steps ends a CPU engine: it rewinds the request's
    # random generator by an offset, which PyTorch's CPU generator does not have. So that nobody's seed can do
    # that, a prompt is prefilled whole.
    if not named & {"--enable-chunked-prefill", "--no-enable-chunked-prefill", "--max-num-batched-tokens"}:
        options += ["--no-enable-chunked-prefill"]
    return tuple(options)


def kv_cache_bytes(available_bytes: int) -> int:
    """A quarter of the free memory, in whole GiB from 1 to 32: vLLM touches all of it at the start."""
    return max(1, min(32, available_bytes // 4 // GIB)) * GIB


def available_memory_bytes() -> int:
    """Free memory and what the page cache can give back; with NUMA, of the first node: vLLM binds to it."""
    for path in (Path("/sys/devices/system/node/node0/meminfo"), Path("/proc/meminfo")):
        with contextlib.suppress(OSError):
            kib = {name: int(value) for name, value in re.findall(r"(\S+):\s+(\d+) kB", path.read_text())}
            return 1024 * sum(kib.get(name, 0) for name in ("MemFree", "Active(file)", "Inactive(file)"))
    return 4 * GIB  # neither Linux nor known: enough for the smallest cache


def engine_environment(model: str, engine_args: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The engine's environment: ours, plus what is not set yet of the following."""
    defaults = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}  # an embedded engine reports to nobody
    if Path(model).is_dir() and not any("tokenizer" in argument for argument in engine_args):
        defaults["HF_HUB_OFFLINE"] = "1"  # all files are there; vLLM would ask the hub about them nonetheless
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores <= FEW_CORES and not has_cuda_gpu() and "VLLM_CPU_OMP_THREADS_BIND" not in environment:
        # vLLM pins its threads to all cores but one. With few cores it then waits for whatever else runs on them
        # while another is idle: leave that to the kernel. Without pinning it takes one thread unless told.
        defaults |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(cores)}
    return {**defaults, **environment}


FEW_CORES = 4


def has_cuda_gpu() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and (
        Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as vLLM does: connections may linger
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


# ----- why it could not start -----


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
