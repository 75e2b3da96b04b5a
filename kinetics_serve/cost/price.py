"""The one place where eFLOPs are computed.

Kinetics (arXiv 2506.05333) for a serving system: prefill is charged, contexts grow token by token rather than as a
continuous integral, every kind of layer and the parameters that a token is multiplied by count as they are. Reading
parameters is taken as amortised over the batch, as in the paper. Every sum is a closed form in ints: costs of parts add
up exactly."""

from __future__ import annotations

from dataclasses import dataclass

from kinetics_serve.cost.architecture import Architecture
from kinetics_serve.cost.cost import ZERO, Cost
from kinetics_serve.cost.hardware_profile import HardwareProfile
from kinetics_serve.cost.layers import AttentionLayers
from kinetics_serve.cost.policy import DENSE, KVPolicy
from kinetics_serve.cost.shared_prompt import Steps
from kinetics_serve.cost.sums import sum_whole_pages


@dataclass(frozen=True)
class Price:
    """What ``architecture``'s samples cost on hardware of ``intensity`` FLOPs per byte.

    Token counts that are negative or contradict each other raise ValueError.
    """

    architecture: Architecture
    intensity: float
    dollars_per_eflop: float | None = None
    """None where nobody said what an hour of the hardware costs."""

    def __post_init__(self) -> None:
        if not 0 <= self.intensity < float("inf"):
            raise ValueError(f"intensity must be finite and not negative FLOPs per byte, got {self.intensity}")

    @classmethod
    def on(cls, architecture: Architecture, hardware: HardwareProfile) -> Price:
        """On ``hardware``, at the intensity of the dtype that the checkpoint is multiplied in."""
        dtype = architecture.gemm_dtype
        return cls(architecture, hardware.intensity_in(dtype), hardware.dollars_per_eflop(dtype))

    def eflops(self, cost: Cost) -> float:
        """``cost`` in eFLOPs at this hardware's intensity."""
        return cost.eflops(self.intensity)

    def prefill(self, prompt_tokens: int, cached_tokens: int = 0) -> Cost:
        """Processing a prompt of which the first ``cached_tokens`` are in the prefix cache.

        New tokens pay 2·P and causal attention. Memory assumes one pass of an attention kernel that keeps a
        tile of queries on chip: every layer writes each new token's KV once and reads the cached prefix, on
        a sliding-window layer its last window of tokens, once. A recurrent layer's state is read and written once.
        """
        _check_order(0, cached_tokens, prompt_tokens, "cached_tokens", "prompt_tokens")
        new, kv_bytes = prompt_tokens - cached_tokens, self.architecture.kv_bytes
        cost = Cost(2 * self.architecture.multiplied_parameters * new, 0)
        for group in self.architecture.layers:
            attended = group.span.attended(cached_tokens + 1, prompt_tokens)
            moved = group.stored_bytes(kv_bytes) * new + group.read_bytes(kv_bytes) * group.span.cached(cached_tokens)
            state = group.state_bytes if prompt_tokens else 0
            cost += Cost(group.prefill_flops * attended + group.state_flops * new, moved + state)
        return cost

    def decode(self, prompt_tokens: int, generated_tokens: int, kv: KVPolicy = DENSE, *, start: int = 0) -> Cost:
        """Generating the tokens number ``start`` + 1 to ``generated_tokens`` of one sample.

        Token t attends to prompt_tokens + t tokens, itself included, or to those of them that a layer's window, chunk
        or indexer leaves; full attention to at most ``kv.budget``. Parts add up:
        decode(p, k) + decode(p, g, start=k) == decode(p, g).
        """
        _check_order(0, start, generated_tokens, "start", "generated_tokens")
        first, last = _context(prompt_tokens, start + 1), _context(prompt_tokens, generated_tokens)
        tokens, kv_bytes = generated_tokens - start, self.architecture.kv_bytes
        cost = Cost(2 * self.architecture.multiplied_parameters * tokens, 0)
        for group in self.architecture.layers:
            cost += Cost(group.state_flops * tokens, group.state_bytes * tokens)
            if isinstance(group, AttentionLayers) and group.selectable:
                attended = kv.attended(first, last)
                cost += self._selection(group, first, last, kv)
            else:
                attended = group.span.attended(first, last)
            cost += Cost(group.flops * attended, group.read_bytes(kv_bytes) * attended)
        return cost

    def prompt_reads(self, prompt_tokens: int, steps: int, kv: KVPolicy = DENSE, *, start: int = 0) -> Cost:
        """The part of a decode that samples of one prompt which run together share, in steps ``start`` + 1 to ``steps``
        of a sample: reading the *prompt's* KV, or the summaries of its pages where a context exceeds the KV budget.

        On a sliding-window layer, the prompt's tokens still inside the window; on one that attends to the best, those
        of contexts that it attends to whole.
        """
        _check_order(0, start, steps, "start", "steps")
        _context(prompt_tokens, steps)
        dense_steps = kv.dense_steps(prompt_tokens)
        before, until = Steps.of(start, dense_steps), Steps.of(steps, dense_steps)
        pages = prompt_tokens // kv.page_size * (until.sparse - before.sparse)
        read: float = 0
        for group in self.architecture.layers:
            first, last = start, steps
            if isinstance(group, AttentionLayers) and group.selectable:
                first, last = before.dense, until.dense
                read += self._summaries(group, kv, pages).memory_bytes
            read += group.read_bytes(self.architecture.kv_bytes) * group.span.shared(prompt_tokens, first, last)
        return Cost(0, read)

    def sample(self, prompt_tokens: int, max_tokens: int, kv: KVPolicy = DENSE, cached_tokens: int = 0) -> Cost:
        """Prefill and decode of a sample that runs to ``max_tokens``: its worst case."""
        return self.prefill(prompt_tokens, cached_tokens) + self.decode(prompt_tokens, max_tokens, kv)

    def settle(self, prompt_tokens: int, tokens: int, kv: KVPolicy, cached_tokens: int, charged: Steps) -> Cost:
        """A finished or cancelled sample of ``tokens``, charged for ``charged`` of its steps' reads of the prompt.

        The rest were charged to the samples that ran beside it (see ``SharedPrompt``). Never more than
        ``sample`` of the same tokens. On a sliding-window layer the charged reads count as the sample's first, its
        largest, so the charge errs upwards.
        """
        cost = self.sample(prompt_tokens, tokens, kv, cached_tokens)
        return cost - self.reads_others_pay(prompt_tokens, tokens, kv, charged)

    def reads_others_pay(self, prompt_tokens: int, tokens: int, kv: KVPolicy, charged: Steps) -> Cost:
        """The part of ``sample`` that ``settle`` leaves to the samples that ran beside it."""
        dense = Steps.of(tokens, kv.dense_steps(prompt_tokens)).dense
        within = self.prompt_reads(prompt_tokens, dense, kv, start=charged.dense)
        return within + self.prompt_reads(prompt_tokens, tokens, kv, start=dense + charged.sparse)

    def together(self, prompt_tokens: int, tokens: int, samples: int, kv: KVPolicy = DENSE) -> Cost:
        """``samples`` of one prompt that run side by side: it is prefilled once, and read once a step."""
        other = self.decode(prompt_tokens, tokens, kv) - self.prompt_reads(prompt_tokens, tokens, kv)
        one = self.sample(prompt_tokens, tokens, kv)
        return Cost(
            one.compute_flops + (samples - 1) * other.compute_flops,
            one.memory_bytes + (samples - 1) * other.memory_bytes,
        )

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

    def _selection(self, group: AttentionLayers, first: int, last: int, kv: KVPolicy) -> Cost:
        """Scoring every page of the contexts in first..last that are not attended densely."""
        dense = kv.longest_dense
        if dense is None:
            return ZERO
        return self._summaries(group, kv, sum_whole_pages(max(first, dense + 1), last, kv.page_size))

    def _summaries(self, group: AttentionLayers, kv: KVPolicy, pages: int) -> Cost:
        """Scoring so many pages in each layer."""
        # Whole FLOPs and bytes per page, so that parts of a generation add up exactly.
        elements = kv.summary_vectors * group.head_size
        flops, moved = round(2 * elements), round(elements * self.architecture.kv_bytes)
        return Cost(group.count * pages * group.query_heads * flops, group.count * pages * group.kv_heads * moved)


def _context(prompt_tokens: int, generated_tokens: int) -> int:
    if prompt_tokens < 0:
        raise ValueError(f"prompt_tokens must not be negative, got {prompt_tokens}")
    return prompt_tokens + generated_tokens


def _check_order(low: int, middle: int, high: int, middle_name: str, high_name: str) -> None:
    if not low <= middle <= high:
        raise ValueError(f"expected {low} <= {middle_name} <= {high_name}, got {middle} and {high}")
