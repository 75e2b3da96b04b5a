"""Takes connections off a socket that several workers listen on."""

import asyncio
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger(__name__)

BACKLOG = 2048

PAUSE_S = 0.002
"""A worker that has siblings leaves them the next connection: else the first to wake up takes a whole burst."""

NO_DESCRIPTORS_PAUSE_S = 1.0


class Accepting:
    """Accepts one connection at a time, so that of several workers those with the least to do take the most.

    pause_s: between two. new_protocol: of a connection.
    """

    def __init__(self, listener: socket.socket, new_protocol: Callable[[], asyncio.Protocol], pause_s: float) -> None:
        self._listener = listener
        self._new_protocol = new_protocol
        self._pause_s = pause_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._connecting: set[asyncio.Task[object]] = set()
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """From here on nobody listens, as far as this process is concerned."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    async def wait_closed(self) -> None:
        """As an asyncio server has it: returns when what was accepted is connected or gone."""
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(seconds, self._resume)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another worker was faster
            return
        except OSError as error:
            logger.error("no connection can be accepted: %s", error)
            self._wait(NO_DESCRIPTORS_PAUSE_S)
            return
        connection.setblocking(False)
        connecting = self._loop.create_task(self._connect(connection))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)
        if self._pause_s:
            self._wait(self._pause_s)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._new_protocol, connection)
        except OSError:  # gone already
            connection.close()
