"""The connections to all servers."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

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


@dataclass(slots=True)
class Sending:
    """What is known of one request, given to a client as its `trace_request_ctx`. reused: its connection had served
    another before."""

    reused: bool = False


def new_client(traces: Sequence[aiohttp.TraceConfig] = ()) -> aiohttp.ClientSession:
    """The connections that all upstreams share. Generation may take its time; connecting may not."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_EXPIRY_S, socket_factory=_new_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        trace_configs=[*traces, _noting_reuse()],
    )


def _noting_reuse() -> aiohttp.TraceConfig:
    async def note(
        session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceConnectionReuseconnParams
    ) -> None:
        if isinstance(context.trace_request_ctx, Sending):
            context.trace_request_ctx.reused = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(note)
    return config


def _new_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    for option in KEEPALIVE:
        made.setsockopt(*option)
    return made
