"""Layers of a model on a GPU: filled and summarised KV caches, and what a decode step does with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import triton
import triton.language as tl

from sparse_backend.constants import BLOCK, pages
from sparse_backend.kernels.batch import Heads, Softmax
from sparse_backend.kernels.triton import (
    MAX_WAVE,
    MEMBERS,
    DecodeStep,
    Workspace,
    attend,
    bundle_requests,
    choose_pages,
    decode,
    score_pages,
    split_blocks,
    tile_bytes,
    tile_bytes_per_token,
    update_summaries,
)
from sparse_backend.selection.low_rank import means_of_block, quantise

# Query heads, KV heads, head size.
SHAPES = {"Qwen3-0.6B": (16, 8, 128), "Qwen3-8B": (32, 8, 128), "Qwen3-32B": (64, 8, 128)}
PHASES = 16  # of a page of 16 tokens: in each step another sixteenth of the requests completes one
STREAM = 4096  # numbers of 4 bytes that a program of the read-only stream reads


class Layers:
    """`count` layers' caches of `batch` requests of about `context` tokens, in an engine of `max_model_len`."""

    def __init__(
        self, heads: Heads, count: int, batch: int, context: int, max_model_len: int, device: torch.device
    ) -> None:
        self.heads, self.batch, self.context, self.device = heads, batch, context, device
        self.softmax = Softmax(heads.head_size**-0.5)
        width, blocks = pages(context, BLOCK), batch * pages(context, BLOCK)
        share = tile_bytes_per_token(heads) // heads.dtype.itemsize
        shape = blocks, heads.kv_heads, BLOCK, 2 * heads.head_size + share
        self.caches = [split_blocks(torch.empty(shape, dtype=heads.dtype, device=device), heads) for _ in range(count)]
        query_heads = heads.kv_heads * heads.num_queries_per_kv
        self.query = torch.randn(batch, query_heads, heads.head_size, device=device).to(heads.dtype)
        self.output = torch.zeros_like(self.query)
        self.table = torch.zeros(batch, pages(max_model_len, BLOCK), dtype=torch.int32, device=device)
        self.table[:, :width] = torch.randperm(blocks, device=device).view(batch, width)
        self.unshared, self.common = self.table.clone(), self.int32([0] * batch * MAX_WAVE).view(batch, MAX_WAVE)
        self.work = Workspace.allocate(heads, batch, max_model_len, max_model_len, device)
        whole = replace(self.step_of(0), query_start=self.int32(range(0, (batch + 1) * context, context)))
        for cache, tiles in self.caches:
            for some in cache.split(256):
                # Keys that differ between pages more than within one, as real ones do.
                shape = (*some.shape[:2], heads.pages_of_tile, 1, some.shape[3])
                page = torch.randn(shape, device=device).expand(-1, -1, -1, heads.page_size, -1).flatten(2, 3)
                some.copy_(page + torch.randn(some.shape, device=device))
            update_summaries(heads, whole, cache, tiles, context)
        self.steps: list[DecodeStep] = []
        self.launches = max(count, PHASES)

    def int32(self, values: object) -> torch.Tensor:
        return torch.tensor(list(values), dtype=torch.int32, device=self.device)  # type: ignore[call-overload]

    def step_of(self, budget: int, phase: int = 0) -> DecodeStep:
        """A step under a budget of `budget` tokens, whose requests stand at different tokens of their last pages."""
        lens = [self.context - (phase + row) % PHASES for row in range(self.batch)]
        budgets = self.int32([budget // self.heads.page_size] * self.batch)
        bundles = self.int32([-1] * self.batch * MEMBERS).view(self.batch, MEMBERS)
        start, shared_pages = self.int32(range(self.batch + 1)), self.int32([0] * self.batch)
        step = DecodeStep(start, self.int32(lens), self.table, budgets, bundles, shared_pages)
        self.bundle(step)
        return step

    def bundle(self, step: DecodeStep) -> None:
        """Once a step, before its layers: which requests have pages in common."""
        bundle_requests(step, self.common, self.heads.page_size)

    def share(self, tokens: int) -> None:
        """Makes the requests of the steps planned from now on samples of one prompt of `tokens` tokens."""
        self.table.copy_(self.unshared)
        self.table[:, : tokens // BLOCK] = self.unshared[0, : tokens // BLOCK]

    def plan(self, budget: int) -> None:
        """Makes the steps to come, once, since a CUDA graph remembers their tensors."""
        self.steps = [self.step_of(budget, phase) for phase in range(PHASES)]

    def turns(self) -> Iterator[tuple[DecodeStep, torch.Tensor, torch.Tensor]]:
        for turn in range(self.launches):
            yield self.steps[turn % len(self.steps)], *self.caches[turn % len(self.caches)]

    def sparse(self) -> None:
        """A decode step of every layer, as an engine runs it."""
        for turn in range(self.launches):
            self.sparse_layer(turn)

    def sparse_layer(self, turn: int) -> None:
        step, (cache, tiles) = self.steps[turn % len(self.steps)], self.caches[turn % len(self.caches)]
        update_summaries(self.heads, step, cache, tiles, 1)
        decode(self.heads, step, self.query, cache, tiles, self.output, self.softmax, self.work)

    def kernels(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Each kernel alone, over all layers. Attention reads what `sparse` chose last."""
        heads, query, softmax, work = self.heads, self.query, self.softmax, self.work
        waves = work.waves(self.batch)

        def update() -> None:
            for step, cache, tiles in self.turns():
                update_summaries(heads, step, cache, tiles, 1)

        def score() -> None:
            for step, _, tiles in self.turns():
                for wave in waves:
                    score_pages(heads, step, query, tiles, softmax, work, *wave)

        def choose() -> None:
            for step, _, _ in self.turns():
                for wave in waves:
                    choose_pages(heads, step, softmax, work, *wave)

        def attention() -> None:
            for step, cache, tiles in self.turns():
                for wave in waves:
                    attend(heads, step, query, cache, tiles, self.output, softmax, work, *wave)

        yield from (("update", update), ("score", score), ("choose", choose), ("attend", attention))

    def dense_ways(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Dense attention, in torch on contiguous copies of as many layers, and by our own kernel over all pages."""
        step, heads = self.step_of(self.context), self.heads
        work = Workspace.allocate(heads, self.batch, self.context, self.context, self.device)
        slots = torch.arange(heads.pages_of_tile, dtype=torch.int32, device=self.device)
        places = self.table[:, : pages(self.context, BLOCK), None] * heads.pages_of_tile + slots
        work.table[:] = places[: len(work.table)].flatten(1)[:, None]
        work.counts.fill_(work.table.shape[2])

        def paged() -> None:
            for turn in range(self.launches):
                cache, tiles = self.caches[turn % len(self.caches)]
                for wave in work.waves(self.batch):
                    attend(heads, step, self.query, cache, tiles, self.output, self.softmax, work, *wave)

        yield "paged", paged
        both = []
        for cache, _ in self.caches:
            rows = cache[self.table[:, : pages(self.context, BLOCK)].long()].transpose(2, 1).flatten(2, 3)
            both.append([half.contiguous() for half in rows.split(heads.head_size, -1)])
        query = self.query[:, :, None]

        def sdpa() -> None:
            for turn in range(self.launches):
                key, value = both[turn % len(both)]
                torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)

        yield "sdpa", sdpa

    @property
    def dense_bytes(self) -> int:
        heads = self.heads
        return self.batch * heads.kv_heads * self.context * 2 * heads.head_size * heads.dtype.itemsize

    def bytes_of(self, kernel: str, budget: int) -> float:
        """The fewest bytes that a kernel must move for one layer."""
        heads, each = self.heads, self.batch * self.heads.kv_heads
        of_pages = pages(self.context, heads.page_size)
        masses = 4 * of_pages * heads.num_queries_per_kv
        token = 2 * heads.head_size * heads.dtype.itemsize
        of_means = pages(self.context, BLOCK) * means_of_block(heads.page_size)
        means, weights = (
            of_means * (heads.head_size // 2 + 4),
            of_means * heads.num_queries_per_kv * heads.dtype.itemsize,
        )
        summaries = tile_bytes(heads) * pages(self.context, BLOCK) - means
        return {
            "update": each / PHASES * (heads.page_size * token + tile_bytes(heads) / heads.pages_of_tile),
            "score": each * (summaries + masses),
            "choose": each * (masses + 4 * budget // heads.page_size + weights),
            "attend": each * (budget * token + means + weights),
        }[kernel]

    def error(self, step: DecodeStep, row: int) -> float:
        """Relative error of a request's output of `sparse_layer(0)` against float64, over the pages that were read and
        the estimated masses of the others."""
        heads, work, tokens, cache = self.heads, self.work, int(step.seq_lens[row]), self.caches[0][0]
        blocks = step.block_table[row, : pages(tokens, BLOCK)].long()
        keys, values = cache[blocks].transpose(0, 1).flatten(1, 2)[:, :tokens].double().split(heads.head_size, -1)
        query = self.query[row].double().view(heads.kv_heads, heads.num_queries_per_kv, -1)
        logits = query @ keys.mT * self.softmax.scale
        count, per = pages(tokens, heads.page_size), heads.pages_of_tile
        if int(step.page_budget[row]) < count:
            places = (blocks[:, None] * per + torch.arange(per, device=self.device)).flatten()[:count]
            chosen = [work.table[row, head, : work.counts[row, head]] for head in range(heads.kv_heads)]
            read = torch.stack([torch.isin(places, pages_read) for pages_read in chosen])
            by_token = read.repeat_interleave(heads.page_size, 1)[:, None, :tokens]
            mass = work.log_mass[row, ..., :count].double().masked_fill(read[:, None], -torch.inf)
            together = heads.page_size * per // means_of_block(heads.page_size)
            whole = tokens // heads.page_size * heads.page_size
            means = torch.stack([some.mean(1) for some in values[:, :whole].split(together, 1)], 1)
            codes, scale = quantise(means, 7)
            of_page = (codes * scale).repeat_interleave(together // heads.page_size, 1)
            of_page = torch.nn.functional.pad(of_page, (0, 0, 0, max(0, count - of_page.shape[1])))[:, :count]
            logits = torch.cat([logits.masked_fill(~by_token, -torch.inf), mass], -1)
            values = torch.cat([values, of_page], 1)
        expected = (torch.softmax(logits, -1) @ values).flatten(0, 1)
        return ((self.output[row].double() - expected).norm() / expected.norm()).item()


@triton.jit  # type: ignore[untyped-decorator]
def _read(numbers, sums, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]  # Triton compiles no foreign annotations
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(sums + tl.program_id(0), tl.sum(tl.load(numbers + place), 0))


def read_only_stream(size: int, device: torch.device) -> tuple[int, Callable[[], None]]:
    """How many bytes, and a launch that reads them and writes next to nothing: what decode attention could reach."""
    programs = max(1, size // (4 * STREAM))
    numbers = torch.randn(programs * STREAM, device=device)
    sums = torch.empty(programs, device=device)
    return 4 * programs * STREAM, lambda: _read[(programs,)](numbers, sums, SIZE=STREAM, num_warps=8)
