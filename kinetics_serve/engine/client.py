"""The connections to all servers."""

import socket
from collections.abc import Sequence

import aiohttp

CONNECT_TIMEOUT_S = 5.0

KEEPALIVE_EXPIRY_S = 4.0
"""Less than the 5 s after which vLLM closes a connection that is not used, so that none is used while it closes."""

KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *[
        (socket.IPPROTO_TCP, getattr(socket, option), value)
        for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, option)
    ],
]
"""A server that vanishes without a word is noticed after a minute, though a sample may be silent for longer."""


def new_client(traces: Sequence[aiohttp.TraceConfig] = ()) -> aiohttp.ClientSession:
    """The connections that all upstreams share. Generation may take its time; connecting may not."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_EXPIRY_S, socket_factory=_new_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        trace_configs=[*traces],
    )


def _new_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    for option in KEEPALIVE:
        made.setsockopt(*option)
    return made
