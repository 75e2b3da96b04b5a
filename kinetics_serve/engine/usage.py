"""Numbers of tokens in what an engine says. Where one makes no sense, the most holds that it can have been."""

from typing import Any

MOST_TOKENS = 2**53
"""A larger number is none that an engine has counted."""


def count(usage: Any, name: str) -> int | None:
    """A number of tokens in what an engine says; None where it says none, or what can't be one."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def reported(usage: Any, name: str, most: int) -> int:
    """A number of tokens, of which there were at most so many."""
    value = count(usage, name)
    return value if value is not None and value <= most else most


def cached(usage: Any, prompt_tokens: int) -> int:
    """Of the prompt's tokens, how many the prefix cache had: none where nothing sensible is said."""
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    value = count(details, "cached_tokens")
    return value if value is not None and value <= prompt_tokens else 0
