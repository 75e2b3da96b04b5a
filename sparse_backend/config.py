"""What a user can set: `additional_config={"sparse_attention": {...}}` of a vLLM engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sparse_backend.constants import MAX_TOKENS, PAGE_SIZES, pages
from sparse_backend.selection import selector_names

KEY = "sparse_attention"


class ConfigError(ValueError):
    """A configuration that cannot work; the message says what to change."""


@dataclass(frozen=True)
class SparseAttentionConfig:
    """Sparse attention settings of one engine."""

    kv_budget: int = 1024
    """Tokens: a decode step of one request reads, for each KV head, no more KV bytes than a dense step over so many
    tokens would (sink and local window included; page summaries come on top). 0 is dense."""

    selector: str = "low_rank"
    """Which pages are read: a name in the entry-point group `sparse_backend.selectors`."""

    page_size: int = 16
    """Tokens that are chosen together."""

    sink_tokens: int = 16
    """The first tokens, whose keys are always read."""

    local_tokens: int = 64
    """The last tokens, whose keys are always read."""

    min_context: int = 0
    """Tokens: a request stays dense until its context exceeds this and its budget."""

    enabled: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("selector", "enabled"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TOKENS:
                raise ConfigError(f"{KEY}.{field.name} is {value!r}: set it to a whole number from 0 to {MAX_TOKENS}.")
        if not isinstance(self.enabled, bool):
            raise ConfigError(f"{KEY}.enabled is {self.enabled!r}: set it to true or false.")
        if self.selector not in selector_names():
            known = ", ".join(selector_names()) or "none: install kinetics-serve again"
            raise ConfigError(f"{KEY}.selector is {self.selector!r}: choose one of those installed, {known}.")
        if self.page_size not in PAGE_SIZES:
            raise ConfigError(f"{KEY}.page_size is {self.page_size}: choose one of {', '.join(map(str, PAGE_SIZES))}.")
        if self.local_tokens < 1:
            raise ConfigError(f"{KEY}.local_tokens is 0: keep at least 1, the token being decoded.")
        self.check_budget(self.kv_budget, f"{KEY}.kv_budget")

    @property
    def min_budget(self) -> int:
        """The smallest budget other than 0: the pages of the sink and of the local window, and one page to choose."""
        # A window that starts inside a page touches one page more than its length says.
        kept = pages(self.sink_tokens, self.page_size) + pages(self.local_tokens, self.page_size) + 1
        return (kept + 1) * self.page_size

    def check_budget(self, budget: object, name: str) -> int:
        """Returns `budget` if it can be used, else raises ConfigError."""
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
            raise ConfigError(f"{name} is {budget!r}: give a whole number of tokens, or 0 for dense attention.")
        if 0 < budget < self.min_budget:
            raise ConfigError(
                f"{name} is {budget}: sink_tokens {self.sink_tokens}, local_tokens {self.local_tokens} and one page "
                f"of {self.page_size} need at least {self.min_budget}; raise it, or use 0 for dense attention."
            )
        return budget

    @classmethod
    def from_mapping(cls, given: object) -> SparseAttentionConfig:
        """Reads the value of `additional_config["sparse_attention"]`. Raises ConfigError."""
        if not isinstance(given, Mapping):
            raise ConfigError(f'{KEY} is {given!r}: give an object such as {{"kv_budget": 1024}}.')
        known = [field.name for field in fields(cls)]
        unknown = [str(name) for name in given if name not in known]
        if unknown:
            raise ConfigError(f"{KEY} has no field {', '.join(unknown)}: the fields are {', '.join(known)}.")
        return cls(**given)


def from_additional_config(additional_config: Any) -> SparseAttentionConfig | None:
    """The settings in a vLLM `additional_config`, or None where sparse attention is absent or not enabled."""
    if not isinstance(additional_config, Mapping) or KEY not in additional_config:
        return None
    config = SparseAttentionConfig.from_mapping(additional_config[KEY])
    return config if config.enabled else None
