"""The one place where eFLOPs are computed.

Kinetics (arXiv 2506.05333) for a serving system: prefill is charged, contexts grow token by
token rather than as a continuous integral, sliding windows and active parameters count as they are. Reading
parameters is taken as amortised over the batch, as in the paper. Every sum is a closed form in ints: costs
of parts add up exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from kinetics_serve.cost.architecture import Architecture, AttentionLayers
from kinetics_serve.cost.cost import ZERO, Cost
from kinetics_serve.cost.policy import DENSE, KVPolicy
from kinetics_serve.cost.sums import sum_capped, sum_whole_pages


@dataclass(frozen=True)
class Price:
    """What ``architecture``'s samples cost on hardware of ``intensity`` FLOPs per byte.

    Token counts that are negative or contradict each other raise ValueError.
    """

    architecture: Architecture
    intensity: float

    def __post_init__(self) -> None:
        if not 0 <= self.intensity < float("inf"):
            raise ValueError(f"intensity must be finite and not negative FLOPs per byte, got {self.intensity}")

    def eflops(self, cost: Cost) -> float:
        """``cost`` in eFLOPs at this hardware's intensity."""
        return cost.eflops(self.intensity)

    def prefill(self, prompt_tokens: int, cached_tokens: int = 0) -> Cost:
        """Processing a prompt of which the first ``cached_tokens`` are in the prefix cache.

        New tokens pay 2·P and causal attention. Memory assumes one pass of an attention kernel that keeps a
        tile of queries on chip: every layer writes each new token's KV once and reads the cached prefix, on
        a sliding-window layer its last window of tokens, once.
        """
        _check_order(0, cached_tokens, prompt_tokens, "cached_tokens", "prompt_tokens")
        new = prompt_tokens - cached_tokens
        cost = Cost(2 * self.architecture.active_parameters * new, 0)
        for group in self.architecture.layers:
            attended = sum_capped(cached_tokens + 1, prompt_tokens, group.window)
            moved = new + sum_capped(cached_tokens, cached_tokens, group.window)
            cost += Cost(_attention_flops(group, attended), self._kv_bytes(group, moved))
        return cost

    def decode(self, prompt_tokens: int, generated_tokens: int, kv: KVPolicy = DENSE, *, start: int = 0) -> Cost:
        """Generating the tokens number ``start`` + 1 to ``generated_tokens`` of one sample.

        Token t attends to prompt_tokens + t tokens, itself included, at most ``kv.budget`` or a layer's
        window of them. Parts add up: decode(p, k) + decode(p, g, start=k) == decode(p, g).
        """
        _check_order(0, start, generated_tokens, "start", "generated_tokens")
        first, last = _context(prompt_tokens, start + 1), _context(prompt_tokens, generated_tokens)
        cost = Cost(2 * self.architecture.active_parameters * (generated_tokens - start), 0)
        for group in self.architecture.layers:
            attended = sum_capped(first, last, kv.budget if group.window is None else group.window)
            cost += Cost(_attention_flops(group, attended), self._kv_bytes(group, attended))
            if group.window is None:
                cost += self._selection(group, first, last, kv)
        return cost

    def prompt_reads(self, prompt_tokens: int, steps: int, *, start: int = 0) -> Cost:
        """The part of a dense decode that reads the *prompt's* KV, in steps ``start`` + 1 to ``steps`` of a
        sample.

        It is what samples of one prompt that run together share. On a sliding-window layer, the prompt's
        tokens still inside the window.
        """
        _check_order(0, start, steps, "start", "steps")
        _context(prompt_tokens, steps)
        memory = 0
        for group in self.architecture.layers:
            if group.window is None:
                read = prompt_tokens * (steps - start)
            else:  # in step t, window − t tokens are left for the prompt
                read = sum_capped(max(group.window - steps, 0), group.window - start - 1, prompt_tokens)
            memory += self._kv_bytes(group, read)
        return Cost(0, memory)

    def sample(self, prompt_tokens: int, max_tokens: int, kv: KVPolicy = DENSE, cached_tokens: int = 0) -> Cost:
        """Prefill and decode of a sample that runs to ``max_tokens``: its worst case."""
        return self.prefill(prompt_tokens, cached_tokens) + self.decode(prompt_tokens, max_tokens, kv)

    def settle(self, prompt_tokens: int, tokens: int, kv: KVPolicy, cached_tokens: int, prompt_steps: int) -> Cost:
        """A finished or cancelled sample of ``tokens``, charged for ``prompt_steps`` of its reads of the
        prompt.

        The rest were charged to the samples that ran beside it (see ``SharedPrompt``). Never more than
        ``sample`` of the same tokens. A step whose context exceeds the KV budget selects pages of its own
        and shares no read, as in the paper, so ``prompt_steps`` is at most the dense steps. On a
        sliding-window layer the charged reads count as the sample's first, its largest, so the charge errs
        upwards.
        """
        cost = self.sample(prompt_tokens, tokens, kv, cached_tokens)
        return cost - self.reads_others_pay(prompt_tokens, tokens, kv, prompt_steps)

    def reads_others_pay(self, prompt_tokens: int, tokens: int, kv: KVPolicy, prompt_steps: int) -> Cost:
        """The part of ``sample`` that ``settle`` leaves to the samples that ran beside it."""
        dense = kv.dense_steps(prompt_tokens)
        steps = tokens if dense is None else min(tokens, dense)
        return self.prompt_reads(prompt_tokens, steps, start=prompt_steps)

    def longest(
        self,
        prompt_tokens: int,
        eflops: float,
        kv: KVPolicy = DENSE,
        cached_tokens: int = 0,
        *,
        limit: int,
    ) -> int:
        """The largest max_tokens up to ``limit`` whose ``sample`` costs at most ``eflops``; 0 if none
        does."""
        fits, exceeds = 0, limit + 1
        while exceeds - fits > 1:
            middle = (fits + exceeds) // 2
            if self.eflops(self.sample(prompt_tokens, middle, kv, cached_tokens)) <= eflops:
                fits = middle
            else:
                exceeds = middle
        return fits

    def _kv_bytes(self, group: AttentionLayers, tokens: int) -> int:
        return 2 * group.count * group.kv_heads * group.head_size * self.architecture.kv_bytes * tokens

    def _selection(self, group: AttentionLayers, first: int, last: int, kv: KVPolicy) -> Cost:
        """Scoring every page of the contexts in first..last that exceed the budget."""
        if kv.budget is None or not kv.summary_vectors:
            return ZERO
        pages = group.count * sum_whole_pages(max(first, kv.budget + 1), last, kv.page_size)
        # Whole FLOPs and bytes per page, so that parts of a generation add up exactly.
        elements = kv.summary_vectors * group.head_size
        flops, moved = round(2 * elements), round(elements * self.architecture.kv_bytes)
        return Cost(pages * group.query_heads * flops, pages * group.kv_heads * moved)


def _attention_flops(group: AttentionLayers, tokens: int) -> int:
    return 4 * group.count * group.query_heads * group.head_size * tokens


def _context(prompt_tokens: int, generated_tokens: int) -> int:
    if prompt_tokens < 0:
        raise ValueError(f"prompt_tokens must not be negative, got {prompt_tokens}")
    return prompt_tokens + generated_tokens


def _check_order(low: int, middle: int, high: int, middle_name: str, high_name: str) -> None:
    if not low <= middle <= high:
        raise ValueError(f"expected {low} <= {middle_name} <= {high_name}, got {middle} and {high}")
