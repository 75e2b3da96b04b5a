"""What an engine says that a whole answer used. Where that makes no sense, the most holds that it can have been."""

from typing import Any


def reported(usage: Any, name: str, most: int) -> int:
    """A number of tokens, of which there were at most so many."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= most else most


def cached(usage: Any, prompt_tokens: int) -> int:
    """Of the prompt's tokens, how many the prefix cache had: none where nothing sensible is said."""
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    value = details.get("cached_tokens") if isinstance(details, dict) else None
    return value if type(value) is int and 0 <= value <= prompt_tokens else 0
