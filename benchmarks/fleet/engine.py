"""A simulated vLLM: continuous batching at the cost model's speed, memory for so many samples, a prefix cache."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from heapq import heappop, heappush

from kinetics_serve.planner.capacity import Speed
from kinetics_serve.traces.traces import CACHE_BLOCK


class Died(Exception):
    """The engine broke off."""


class Generation:
    """One sample in an engine. told: after how many tokens it says something, its last included."""

    def __init__(self, prompt: bytes, prompt_tokens: int, told: list[int]) -> None:
        self.prompt = prompt
        self.prompt_tokens = prompt_tokens
        self.told = deque(told)
        self.cached_tokens = 0
        self.began_at_step = 0.0
        self.running = self.decoding = False
        self.events: asyncio.Queue[int | Died] = asyncio.Queue()


class Engine:
    """Every sample that decodes gets a token a step, and a step takes `speed.step_s` of as many as decode.

    Time passes by the running loop's clock. A sample waits while there is no memory for it, then for its prompt's
    prefill, which does not slow the others down, then decodes. cached_prompts: that the prefix cache keeps, the last
    used.
    """

    def __init__(self, url: str, speed: Speed, cached_prompts: int) -> None:
        self.url = url
        self.up = True
        self.tokens = 0
        """Generated, ever."""
        self._speed = speed
        self._cached_prompts = cached_prompts
        self._reset()

    def _reset(self) -> None:
        self._cache: OrderedDict[bytes, None] = OrderedDict()
        self._waiting: deque[Generation] = deque()
        self._running: dict[Generation, asyncio.TimerHandle | None] = {}  # with what ends its prefill
        self._decoding = 0
        self._steps = 0.0
        self._at = 0.0
        self._due: list[tuple[float, int, Generation]] = []
        self._numbers = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def load(self) -> int:
        """Samples that it has."""
        return len(self._running) + len(self._waiting)

    @property
    def waiting(self) -> int:
        """Samples that have no memory yet."""
        return len(self._waiting)

    async def generate(
        self, prompt: bytes, prompt_tokens: int, told: list[int]
    ) -> AsyncGenerator[tuple[int, int], None]:
        """Tokens so far, whenever it tells, and of the prompt those that were cached. Closing it aborts it.

        Raises Died.
        """
        generation = Generation(prompt, prompt_tokens, told)
        last = told[-1]
        self._waiting.append(generation)
        self._fill()
        try:
            tokens = 0
            while tokens < last:
                event = await generation.events.get()
                if isinstance(event, Died):
                    raise event
                tokens = event
                yield tokens, generation.cached_tokens
        finally:
            self._leave(generation)

    def die(self) -> None:
        """All that it does is lost."""
        self.up = False
        if self._timer is not None:
            self._timer.cancel()
        for generation, prefill in [*self._running.items(), *((waiting, None) for waiting in self._waiting)]:
            if prefill is not None:
                prefill.cancel()
            generation.running = generation.decoding = False
            generation.events.put_nowait(Died())
        self._reset()

    def start(self) -> None:
        self.up = True

    def _fill(self) -> None:
        """Begins what there is memory for."""
        while self._waiting and len(self._running) < self._speed.room:
            generation = self._waiting.popleft()
            generation.running = True
            if generation.prompt in self._cache:
                self._cache.move_to_end(generation.prompt)
                generation.cached_tokens = (generation.prompt_tokens - 1) // CACHE_BLOCK * CACHE_BLOCK
            new = 1 - generation.cached_tokens / generation.prompt_tokens
            loop = asyncio.get_running_loop()
            self._running[generation] = loop.call_later(self._speed.prefill_s * new, self._decode, generation)

    def _decode(self, generation: Generation) -> None:
        self._running[generation] = None
        self._cache[generation.prompt] = None
        if len(self._cache) > self._cached_prompts:
            self._cache.popitem(last=False)
        self._pass()
        self._decoding += 1
        generation.decoding = True
        generation.began_at_step = self._steps
        self._announce(generation)
        self._schedule()

    def _announce(self, generation: Generation) -> None:
        self._numbers += 1
        heappush(self._due, (generation.began_at_step + generation.told[0], self._numbers, generation))

    def _leave(self, generation: Generation) -> None:
        """It has ended, or was aborted."""
        if generation.running:
            prefill = self._running.pop(generation)
            if prefill is not None:
                prefill.cancel()
            if generation.decoding:
                self._pass()
                self._decoding -= 1
                self.tokens += int(self._steps - generation.began_at_step)
                self._schedule()
        elif generation in self._waiting:
            self._waiting.remove(generation)
        generation.running = generation.decoding = False
        self._fill()

    def _pass(self) -> None:
        """Brings the steps up to now."""
        now = asyncio.get_running_loop().time()
        if self._decoding:
            self._steps += (now - self._at) / self._speed.step_s(self._decoding)
        self._at = now

    def _schedule(self) -> None:
        """Wakes when the next sample has something to tell."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._due and not self._due[0][2].decoding:
            heappop(self._due)
        if self._due:
            left = max(0.0, self._due[0][0] - self._steps)
            wait = left * self._speed.step_s(self._decoding)
            self._timer = asyncio.get_running_loop().call_later(wait, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._pass()
        self._steps = max(self._steps, self._due[0][0])  # whatever rounding says, its time has come
        while self._due and self._due[0][0] <= self._steps:
            _, _, generation = heappop(self._due)
            if not generation.decoding:
                continue
            generation.events.put_nowait(generation.told.popleft())
            if generation.told:
                self._announce(generation)
            else:  # it leaves the batch in this step, whenever its reader hears of it
                generation.decoding = False
                self._decoding -= 1
                self.tokens += int(self._steps - generation.began_at_step)
        self._schedule()
