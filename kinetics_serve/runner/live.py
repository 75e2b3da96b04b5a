"""Drives a run against a source that produces samples as time passes."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from kinetics_serve.errors import KineticsError
from kinetics_serve.runner.run import Ended, Extra, Run
from kinetics_serve.strategies.state import Finish, Sample

MOST_IN_VAIN = 4
"""Samples that fail before any has a token: a request that breaks servers is not tried on and on."""

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Where samples come from.

    The generator yields 0 when the sample has been accepted, from where on it costs, then the number of tokens so
    far as they come, then the most that forcing or scoring its answer will cost, where that is done, then how the
    sample ended. It raises when the server refuses or fails: that sample has failed then, and the others go on.
    Closing it must stop the sample's generation.
    """

    def sample(self, sample: Sample) -> AsyncGenerator[int | Extra | Ended, None]: ...


async def drive(
    run: Run,
    source: Source,
    *,
    deadline_s: float | None = None,
    stop: asyncio.Event | None = None,
    on_change: Callable[[], None] = lambda: None,
) -> Finish:
    """Runs the policy to its end and returns what it finished with.

    However it ends (an answer, the deadline in seconds, `stop`, which does what a deadline does, cancellation), every
    sample has been stopped and settled by then. `on_change` is called after every event. Raises what the source did
    for the first sample where nothing else is left: all have failed.
    """
    endings: asyncio.Queue[tuple[int, Ended | Exception]] = asyncio.Queue()
    prompt_cached: dict[int, asyncio.Event] = defaultdict(asyncio.Event)
    turns: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
    tasks: set[asyncio.Task[None]] = set()

    async def follow(sample: Sample) -> None:
        # One sample of each arm goes ahead, and the others start when its prompt is in the prefix cache. If it fails
        # before that, the next goes ahead.
        cached, turn = prompt_cached[sample.arm], turns[sample.arm]
        await turn.acquire()
        ahead = not cached.is_set()
        if not ahead:
            turn.release()
        try:
            async with aclosing(source.sample(sample)) as stream:
                async for event in stream:
                    if isinstance(event, Ended):  # the policy decides after each, in their order
                        endings.put_nowait((sample.index, event))
                    else:
                        progressed(sample.index, event)
                    if ahead and event != 0:
                        ahead = False
                        cached.set()
                        turn.release()
        except Exception as error:
            endings.put_nowait((sample.index, error))
        finally:
            if ahead:
                turn.release()

    def progressed(index: int, event: int | Extra) -> None:
        if isinstance(event, Extra):
            run.extra(index, event)
        elif event == 0:
            run.opened(index)
        else:
            run.generated(index, event)
        on_change()

    def ended(index: int, event: Ended | Exception) -> None:
        if isinstance(event, Exception):
            run.failed(index, event)
            if not isinstance(event, KineticsError):
                logger.error("sample %d failed", index, exc_info=event)
        else:
            run.ended(index, event)

    def take_endings() -> None:
        while not endings.empty():
            ended(*endings.get_nowait())

    def given_up(error: Exception) -> bool:
        """Nothing has come of the request, and nothing will: it is refused as it is, or breaks what it is sent to."""
        refused = isinstance(error, KineticsError) and 400 <= error.status < 500 and error.retry_after_s is None
        vain = refused or len(run.failures) >= MOST_IN_VAIN
        return run.hopeless or (vain and not any(sample.tokens for sample in run.samples))

    def launch_decided() -> None:
        for sample in run.decide():
            tasks.add(asyncio.create_task(follow(sample), name=f"sample-{sample.index}"))

    async def run_to_the_end() -> None:
        launch_decided()
        while run.finish is None:
            index, event = await endings.get()
            ended(index, event)
            if isinstance(event, Exception) and given_up(event):
                raise run.failures[min(run.failures)]
            launch_decided()
            on_change()

    timer = asyncio.timeout(deadline_s)

    async def until_stopped(stop: asyncio.Event) -> None:
        await stop.wait()
        timer.reschedule(asyncio.get_running_loop().time())

    try:
        async with timer:
            if stop is not None:
                tasks.add(asyncio.create_task(until_stopped(stop)))
            await run_to_the_end()
    except TimeoutError:
        if not timer.expired():
            raise
        take_endings()  # those of a busy moment vote too
        run.conclude("deadline")
    finally:
        for task in tasks:
            task.cancel()
        try:  # shielded, so that a second cancellation does not keep the first from being settled
            await asyncio.shield(asyncio.gather(*tasks, return_exceptions=True))
        finally:
            try:
                take_endings()  # samples that ended while the others were being stopped cost too
            finally:
                run.cancel_running()
    assert run.finish is not None
    return run.finish
