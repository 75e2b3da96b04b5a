"""How many engines a workload needs, and what they cost: the cost model turned into seconds.

A step of an engine takes the time to read its parameters once, and the eFLOPs of the tokens that it generates. At the
rates of the profile that is the least; `efficiency` says which share of them an engine reaches. A step of few samples
reads fewer experts of a mixture than all, which is left out.
"""

from dataclasses import dataclass
from math import ceil

from kinetics_serve.cost import DENSE, KVPolicy, Price
from kinetics_serve.cost.architecture import Architecture
from kinetics_serve.cost.hardware_profile import SECONDS_PER_HOUR, HardwareProfile
from kinetics_serve.cost.layers import AttentionLayers, LatentLayers

WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp4": 0.5}


class DoesNotFit(ValueError):
    """An engine can't run the workload: the model, or one of its samples, is too large for it."""


@dataclass(frozen=True, slots=True)
class Workload:
    """requests: a second. samples: of each request, side by side, of so many tokens after so many of a prompt."""

    requests: float
    samples: int
    prompt_tokens: int
    generated_tokens: int

    @property
    def tokens(self) -> float:
        """Generated in a second."""
        return self.requests * self.samples * self.generated_tokens


@dataclass(frozen=True, slots=True)
class Engine:
    """One vLLM."""

    hardware: HardwareProfile

    memory: float
    """Bytes of a device."""

    devices: int = 1
    """That share the model by tensor parallelism."""

    utilization: float = 0.9
    """The share of the memory that vLLM takes."""

    efficiency: float = 1.0
    """The share of the profile's rates that it reaches."""

    most_busy: float = 0.8
    """The share of its throughput that it is loaded with; the rest is for peaks."""

    max_batch: int = 1024
    """Samples that it runs at a time (`max_num_seqs`)."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a workload needs."""

    engines: int
    devices: int

    weight_bytes: float
    """The parameters of an engine."""

    sample_bytes: float
    """The KV of a sample."""

    room: int
    """Samples that an engine has memory for."""

    batch: float
    """Samples that it runs at this load."""

    step_s: float

    engine_tokens: float
    """A second, at most."""

    request_s: float
    """From its prefill to its last token, beside at least its own other samples; waiting is not in it."""

    dollars: float | None
    """Of a request; None where no hour's price is known."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an engine is at a workload, whatever its load."""

    weight_bytes: float
    """The parameters of an engine."""

    sample_bytes: float
    """The KV of a sample."""

    room: int
    """Samples that an engine has memory for."""

    read_s: float
    """What a step takes to read the parameters."""

    token_s: float
    """What each sample adds to a step."""

    prefill_s: float
    """Of a prompt."""

    def step_s(self, batch: float) -> float:
        """A token of each of `batch` samples."""
        return self.read_s + batch * self.token_s


def speed(checkpoint: Architecture, engine: Engine, workload: Workload, kv: KVPolicy = DENSE) -> Speed:
    """Raises DoesNotFit."""
    for group in checkpoint.layers:
        if isinstance(group, AttentionLayers | LatentLayers) and group.query_heads % engine.devices:
            raise DoesNotFit(
                f"{checkpoint.name}'s {group.query_heads} attention heads can't be shared evenly by {engine.devices} "
                "devices, as vLLM's tensor parallelism does it: take a number that divides them"
            )
    architecture = checkpoint.on_devices(engine.devices)
    price = Price.on(architecture, engine.hardware)
    bandwidth = engine.hardware.bytes_per_second * engine.devices * engine.efficiency
    weight_bytes = architecture.parameters * WEIGHT_BYTES[architecture.gemm_dtype]
    sample_bytes = _sample_bytes(architecture, workload)
    free = engine.memory * engine.devices * engine.utilization - weight_bytes
    room = min(int(free / sample_bytes), engine.max_batch) if free > 0 else 0
    if room < 1:
        has = engine.memory * engine.devices * engine.utilization
        needed = f"{weight_bytes / 1e9:.1f} GB for its parameters and {sample_bytes / 1e9:.2f} GB for a sample"
        there = f"{engine.devices} × {engine.hardware.name} has {has / 1e9:.1f} GB for both"
        raise DoesNotFit(f"{architecture.name} needs {needed}; {there}: take more devices or memory")
    together = price.together(workload.prompt_tokens, workload.generated_tokens, workload.samples, kv)
    token_s = price.eflops(together) / price.intensity / bandwidth / (workload.samples * workload.generated_tokens)
    prefill_s = price.eflops(price.prefill(workload.prompt_tokens)) / price.intensity / bandwidth
    return Speed(weight_bytes, sample_bytes, room, weight_bytes / bandwidth, token_s, prefill_s)


def capacity(checkpoint: Architecture, engine: Engine, workload: Workload, kv: KVPolicy = DENSE) -> Capacity:
    """Raises DoesNotFit."""
    longest = workload.prompt_tokens + workload.generated_tokens
    if checkpoint.max_context is not None and longest > checkpoint.max_context:
        raise DoesNotFit(
            f"a prompt of {workload.prompt_tokens} tokens and a sample of {workload.generated_tokens} are more than "
            f"{checkpoint.name}'s longest context of {checkpoint.max_context}"
        )
    fast = speed(checkpoint, engine, workload, kv)
    most = fast.room / fast.step_s(fast.room)
    engines = max(1, ceil(workload.tokens / (most * engine.most_busy)))
    rate = workload.tokens / engines
    batch = max(1.0, rate * fast.read_s / (1 - rate * fast.token_s))
    step_s = fast.step_s(batch)
    # What samples add to a step includes their share of the prefill. A request runs beside its own samples, even where
    # the engine idles most of the time, and in turns where there is no room for all.
    at_once = min(workload.samples, fast.room)
    request_step_s = fast.step_s(max(batch, at_once)) * workload.samples / at_once
    hourly, devices = engine.hardware.dollars_per_hour, engines * engine.devices
    return Capacity(
        engines=engines,
        devices=devices,
        weight_bytes=fast.weight_bytes,
        sample_bytes=fast.sample_bytes,
        room=fast.room,
        batch=batch,
        step_s=step_s,
        engine_tokens=most,
        request_s=workload.generated_tokens * request_step_s,
        dollars=devices * hourly / SECONDS_PER_HOUR / workload.requests if hourly is not None else None,
    )


def _sample_bytes(architecture: Architecture, workload: Workload) -> float:
    """Of a sample at its full length, with its share of the prompt: so none has to be preempted."""
    tokens = workload.prompt_tokens / workload.samples + workload.generated_tokens
    state = sum(group.state_bytes for group in architecture.layers) / 2  # they are read and written
    return architecture.kv_token_bytes * tokens + state
