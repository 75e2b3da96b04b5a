"""Which backend vLLM chose for each layer: asked anew by every engine, and said where it stays dense."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from vllm.config import get_current_vllm_config_or_none
from vllm.logger import init_logger

from sparse_backend.backends.engine import check_engine, engine_of
from sparse_backend.config import KEY

logger = init_logger(__name__)


def watched(choose: Callable[..., type[Any]]) -> Callable[..., type[Any]]:
    """vLLM's choice of a backend, without its cache, and with a warning where the chosen one cannot be sparse.

    vLLM keeps a backend by what it asks of one, additional_config not included: another engine in this process, with
    other settings or none, would get the first one's. The choice raises ConfigError where sparse attention cannot serve
    the model.
    """
    choose = inspect.unwrap(choose)

    @wraps(choose)
    def chosen(*args: Any, **kwargs: Any) -> type[Any]:
        vllm_config = get_current_vllm_config_or_none()
        engine = vllm_config and engine_of(vllm_config)
        if vllm_config is not None and engine:
            check_engine(vllm_config)
        backend = choose(*args, **kwargs)
        if engine and not hasattr(backend, "engine"):
            logger.warning_once(
                "Layers on the attention backend %s, which vLLM chose, stay dense: sparse attention does not replace "
                "it. Name one that it does with --attention-backend, or remove %s from additional_config.",
                backend.get_name(),
                KEY,
            )
        return backend

    return chosen
