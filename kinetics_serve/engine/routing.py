"""Which of several servers gets a request: where its prompt's beginning is cached, unless that one is too busy."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from math import ceil
from typing import Any

BALANCE = 1.25
"""A server gets no request for its cache's sake while it has this many times the mean of what is in flight."""

PREFIX_CHARACTERS = 2048
PREFIX_TOKENS = 512


def choose(loads: Mapping[str, int], prefix: bytes | None) -> str:
    """The server for a request. loads: requests in flight by server, at least one server.

    prefix: equal for requests that should meet; None for one that suits any server, which goes to the least busy.
    Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, arXiv 1608.01350), ranked by rendezvous
    hashing: when a server goes, only its own prompts move, each to its next best server.
    """
    if prefix is None:
        return min(loads, key=lambda server: loads[server])
    limit = ceil(BALANCE * (sum(loads.values()) + 1) / len(loads))
    under_limit = [server for server, load in loads.items() if load < limit]  # one at least is no busier than the mean
    return max(under_limit, key=lambda server: _rank(server, prefix))


def prefix_of(body: Mapping[str, Any]) -> bytes | None:
    """What a request shares with others of the same conversation: salt, tools, and the messages up to the user's first.

    Of a prompt that is one text or one list of tokens: its beginning. None where there is neither.
    """
    messages = body.get("messages") or body.get("input")
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(messages, list):
        beginning: Any = messages[: _first_user(messages) + 1]
    elif isinstance(text := messages or prompt, str | list) and text:
        beginning = text[: PREFIX_CHARACTERS if isinstance(text, str) else PREFIX_TOKENS]
    else:
        return None
    shared = [body.get("model"), body.get("cache_salt"), body.get("tools"), body.get("instructions"), beginning]
    return blake2b(json.dumps(shared).encode(), digest_size=16).digest()


def _first_user(messages: list[Any]) -> int:
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    return roles.index("user") if "user" in roles else 0


def _rank(server: str, prefix: bytes) -> bytes:
    return blake2b(server.encode(), key=prefix, digest_size=8).digest()
