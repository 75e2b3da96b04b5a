"""Which vLLM this is made for. Tests list what of vLLM is used, and hold it against each of these versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

KNOWN = ("0.32", "0.33")


class LacksInterface(RuntimeError):
    """This vLLM has no longer, or not yet, something that the plugin builds on."""


def is_known(version: str) -> bool:
    return version.startswith(tuple(f"{known}." for known in KNOWN))


@contextmanager
def interfaces_of(version: str) -> Iterator[None]:
    """Uses vLLM's interfaces. Raises LacksInterface where one is gone."""
    try:
        yield
    except (ImportError, AttributeError) as error:
        raise LacksInterface(
            f"sparse_backend can't work with vLLM {version}: {error}. It is made for vLLM {' and '.join(KNOWN)}: "
            "install one of these, or name the plugins that vLLM is to load in VLLM_PLUGINS, without sparse_backend"
        ) from error
