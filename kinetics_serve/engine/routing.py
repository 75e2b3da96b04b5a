"""Which of several servers gets a request: where its prompt's beginning is cached, unless that one is too busy."""

import json
from collections.abc import Collection, Mapping
from hashlib import blake2b, shake_128
from math import ceil
from typing import Any

BALANCE = 1.25
"""A server gets no request for its cache's sake while it has this many times the mean of what is in flight."""

NEAR = 16
"""Of many servers, those where a prefix may be cached, in the order of its preference."""

PREFIX_CHARACTERS = 2048
PREFIX_TOKENS = 512


def choose(loads: Mapping[str, int], prefix: bytes | None, near: Collection[str] | None = None) -> str:
    """The server for a request. loads: requests in flight by server, at least one server.

    prefix: equal for requests that should meet; None for one that suits any server, which goes to the least busy.
    near: those of the servers where the prefix may be cached, all by default; if they are too busy, the least busy of
    all is chosen.
    Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, arXiv 1608.01350), ranked by rendezvous
    hashing: when a server goes, only its own prompts move, each to its next best server.
    """
    if prefix is None:
        return min(loads, key=lambda server: loads[server])
    limit = ceil(BALANCE * (sum(loads.values()) + 1) / len(loads))
    under_limit = [server for server in (loads if near is None else near) if loads[server] < limit]
    if not under_limit:  # of all servers, one at least is no busier than the mean
        return min(loads, key=lambda server: loads[server])
    return max(under_limit, key=lambda server: _rank(server, prefix))


def places(prefix: bytes, count: int) -> list[int]:
    """Where a prefix may be cached in a list of `count` servers: at most NEAR places, whatever their number.

    Jump consistent hashing (Lamping, Veach, arXiv 1406.2294): a server more at the list's end takes its share of the
    places, and all others stay.
    """
    keys = shake_128(prefix).digest(8 * NEAR)
    found = [_jump(int.from_bytes(keys[start : start + 8]), count) for start in range(0, len(keys), 8)]
    return list(dict.fromkeys(found))


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


def _jump(key: int, count: int) -> int:
    """The place of a key: the last of the jumps that a sequence of random numbers makes within the list."""
    place, jump = 0, 0
    while jump < count:
        place = jump
        key = (key * 2862933555777941757 + 1) % 2**64
        jump = int((place + 1) * 2**31 / ((key >> 33) + 1))
    return place


def _rank(server: str, prefix: bytes) -> bytes:
    return blake2b(server.encode(), key=prefix, digest_size=8).digest()
