"""Work that a cancellation must not tear in two."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def uninterrupted(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`function`, which runs to its end however often its caller is cancelled: the caller ends after it.

    A database's connection that is abandoned in a transaction may hold its locks until somebody collects it, and on
    SQLite the write lock is everybody's.
    """

    @wraps(function)
    async def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.create_task(function(*args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):  # a deadline, and then the client has left too
                    await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # seen: the caller has gone
            raise

    return whole
