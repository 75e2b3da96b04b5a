"""What is worth knowing of the engine that made a recording."""

from typing import Any

from kinetics_serve.engine.errors import EngineUnavailable
from kinetics_serve.engine.info import EngineInfo
from kinetics_serve.engine.upstream import Upstream


async def engine_facts(server: Upstream, root: str | None) -> dict[str, Any]:
    """As traces keep it, see traces.Metadata: what the server says of itself, and no more. root: of the model."""
    try:
        info = await server.info()
    except (EngineUnavailable, ValueError):  # the trials can be recorded all the same
        info = EngineInfo()
    found = {"cache_block": info.kv_block, "vllm": info.vllm, "device": info.device, "model_root": root}
    return {name: value for name, value in found.items() if value is not None}
