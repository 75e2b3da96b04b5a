"""A small paged KV cache in the CUDA layout, with shuffled blocks and ragged requests, and what kernels should give."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from sparse_backend.constants import BLOCK
from sparse_backend.constants import pages as pages_of
from sparse_backend.kernels import Heads, Softmax
from sparse_backend.kernels.triton import (
    DecodeStep,
    Workspace,
    bundle_requests,
    layout,
    split_blocks,
    tile_bytes_per_token,
)
from sparse_backend.kernels.triton.layout import LowRankOffsets
from sparse_backend.selection.low_rank import LowRank, both_nibbles, means_of_block, nibbles, quantise, unpack

DEVICE = torch.device(os.environ.get("SPARSE_BACKEND_TEST_DEVICE", "cpu"))
"""Where the kernels are tested: the CPU, in Triton's interpreter, or `cuda`."""


@dataclass
class Paged:
    heads: Heads
    cache: torch.Tensor
    tiles: torch.Tensor
    seq_lens: list[int]
    block_table: torch.Tensor

    @classmethod
    def random(cls, heads: Heads, seq_lens: list[int], spare_blocks: int = 2) -> Paged:
        width = max(-(-n // BLOCK) for n in seq_lens)
        blocks = width * len(seq_lens) + spare_blocks
        share = tile_bytes_per_token(heads) // heads.dtype.itemsize
        kv_cache = torch.zeros(blocks, heads.kv_heads, BLOCK, 2 * heads.head_size + share, dtype=heads.dtype)
        cache, tiles = split_blocks(kv_cache, heads)
        # Keys that differ between pages more than within one, as real ones do.
        pages = torch.randn(blocks, heads.kv_heads, heads.pages_of_tile, 1, 2 * heads.head_size)
        cache.copy_(torch.randn(cache.shape) + pages.expand(-1, -1, -1, heads.page_size, -1).flatten(2, 3))
        order = torch.randperm(blocks)[: width * len(seq_lens)].view(len(seq_lens), width)
        return cls(heads, cache, tiles, seq_lens, order.int())

    def step(self, budgets: list[int], new: list[int] | None = None) -> DecodeStep:
        """A step in which each request brings `new` tokens (1), with a budget in pages (0: dense)."""
        new, batch = new or [1] * len(budgets), len(budgets)
        step = DecodeStep(
            torch.tensor([0, *new]).cumsum(0).int(),
            torch.tensor(self.seq_lens).int(),
            self.block_table,
            torch.tensor(budgets).int(),
            torch.full((batch, layout.MEMBERS), -1).int(),
            torch.zeros(batch).int(),
        )
        bundle_requests(step, torch.zeros(batch, layout.MAX_WAVE).int(), self.heads.page_size)
        return step

    def workspace(self, max_budget: int) -> Workspace:
        requests, most = len(self.seq_lens), max(self.seq_lens)
        return Workspace.allocate(self.heads, requests, most, max_budget, DEVICE)

    def tokens(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a request in order, float64 [kv_heads, tokens, head_size]."""
        both = self.cache[self.block_table[row].long()].double().transpose(0, 1).flatten(1, 2)[:, : self.seq_lens[row]]
        return both.split(self.heads.head_size, -1)

    def logical(self, row: int, places: torch.Tensor) -> list[int]:
        """Pages of a request, from where they lie in the cache."""
        pages = self.heads.pages_of_tile
        of_block = {block: i for i, block in enumerate(self.block_table[row].tolist())}
        return [of_block[place // pages] * pages + place % pages for place in places.tolist()]

    def block_tiles(self, row: int) -> torch.Tensor:
        """int8 [kv_heads, blocks, bytes], in the order of the request."""
        return self.tiles[self.block_table[row].long()].transpose(0, 1)

    def summaries(self, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the low-rank tiles of a request say: mean keys, directions and coefficients as `low_rank.unpack`
        returns them, of [kv_heads × blocks], and mean values [kv_heads × blocks, means, head_size]."""
        heads, pages = self.heads, self.heads.pages_of_tile
        size, page_size = heads.head_size, heads.page_size
        means, at = means_of_block(page_size), LowRankOffsets.of(size, page_size)
        tiles = self.block_tiles(row).flatten(0, 1)

        def pairs(begin: int, rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
            return both_nibbles(tiles[:, begin : begin + rows * width].view(torch.uint8).unflatten(-1, (rows, width)))

        def neighbours(begin: int, rows: int, width: int) -> torch.Tensor:
            return torch.stack(pairs(begin, rows, width // 2), -1).flatten(-2)

        scale = tiles[:, at.scales : at.mean_values].contiguous().view(torch.float32).unflatten(-1, (-1, pages))
        mean = tiles[:, : at.directions].float().view(-1, pages, size) * scale[:, 0, :, None]
        third = neighbours(at.third_direction, pages, size)
        directions = torch.stack([*pairs(at.directions, pages, size), third], 2)
        third = neighbours(at.third_coefficient, pages, page_size)
        coefficients = torch.stack([*pairs(at.coefficients, pages, page_size), third], 2)
        value_scale = tiles[:, at.value_scales : at.end].contiguous().view(torch.float32)[..., None]
        mean_values = neighbours(at.mean_values, means, size) * value_scale
        return mean, directions, coefficients * scale[:, 1:].mT[..., None], mean_values

    def write_summaries(self) -> None:
        """Writes the reference's summaries of all blocks, whether complete or not, to the tiles."""
        heads, pages = self.heads, self.heads.pages_of_tile
        size, kind = heads.head_size, heads.selector.name
        shape = (-1, heads.kv_heads, pages, heads.page_size, size)
        keys, values = (x.float().reshape(shape) for x in self.cache.split(size, -1))
        if kind == "low_rank":
            tiles = LowRank().summarise(keys, values).flatten(0, 1)
            mean, directions, coefficients = (
                x.unflatten(0, keys.shape[:2]) for x in unpack(tiles, size, heads.page_size)
            )
            mean_values = LowRank().mean_values(tiles, size, heads.page_size).view(*keys.shape[:2], -1, size)
            mean, mean_scale = quantise(mean, 127)
            coefficients, scales = quantise(coefficients, 7)
            mean_values, value_scales = quantise(mean_values, 7)
            parts = [mean.round().to(torch.int8).flatten(2)]
            for codes in (directions, coefficients):
                first, second, third = codes.unbind(3)
                pair, neighbours = nibbles(first, second), nibbles(third[..., ::2], third[..., 1::2])
                parts += [x.to(torch.uint8).flatten(2) for x in (pair, neighbours)]
            parts += [torch.cat([mean_scale, scales.squeeze(-1)], -1).mT.flatten(2)]
            parts += [nibbles(mean_values[..., ::2], mean_values[..., 1::2]).to(torch.uint8).flatten(2)]
            parts += [value_scales.flatten(2)]
        elif kind == "quest":
            parts = [keys.amin(3).bfloat16().flatten(2), keys.amax(3).bfloat16().flatten(2)]
        else:
            parts = [keys.mean(3).bfloat16().flatten(2)]
        tile = torch.cat([x.contiguous().view(torch.int8) for x in parts], -1)
        self.tiles[..., : tile.shape[-1]] = tile

    def expected_summaries(self, row: int) -> tuple[torch.Tensor, ...]:
        """The same, from the reference, for the complete blocks of a request."""
        heads = self.heads
        keys, values = self.tokens(row)
        blocks = self.seq_lens[row] // BLOCK
        shape = (heads.kv_heads * blocks, heads.pages_of_tile, heads.page_size, heads.head_size)
        k, v = (x[:, : blocks * BLOCK].reshape(shape).float() for x in (keys, values))
        tiles = LowRank().summarise(k, v)
        mean_values = LowRank().mean_values(tiles, heads.head_size, heads.page_size).unflatten(0, (len(tiles), -1))
        return *unpack(tiles, heads.head_size, heads.page_size), mean_values

    def log_mass(self, row: int, query: torch.Tensor, softmax: Softmax) -> torch.Tensor:
        """Estimated log Σ e^logit of the pages of a request, from the tiles: float64 [kv_heads, num_queries_per_kv,
        pages]."""
        heads, blocks = self.heads, self.block_table.shape[1]
        q = query.double().view(heads.kv_heads, heads.num_queries_per_kv, heads.head_size) * softmax.scale
        if heads.selector.name == "low_rank":
            mean, direction, coefficient, _ = (
                x.double().unflatten(0, (heads.kv_heads, blocks)).flatten(1, 2) for x in self.summaries(row)
            )
            slopes = torch.einsum("hgd,hpkd->hgpk", q, direction)
            logits = torch.einsum("hgd,hpd->hgp", q, mean)[..., None]
            return (logits + torch.einsum("hgpk,hpkt->hgpt", slopes, coefficient)).logsumexp(-1)
        vectors = self.block_tiles(row).contiguous().view(torch.bfloat16).double()
        size = heads.pages_of_tile * heads.head_size

        def vector(i: int) -> torch.Tensor:
            x = vectors[..., i * size : (i + 1) * size]
            return x.reshape(heads.kv_heads, -1, heads.head_size).transpose(1, 2)

        if heads.selector.name == "block_mean":
            return q @ vector(0)
        return q.clamp(max=0) @ vector(0) + q.clamp(min=0) @ vector(1)

    def expected_pages(self, row: int, budget: int, query: torch.Tensor, softmax: Softmax) -> torch.Tensor:
        """Which pages a budget in pages reads: bool [kv_heads, pages]."""
        heads, tokens = self.heads, self.seq_lens[row]
        pages = pages_of(tokens, heads.page_size)
        sink = min(pages, pages_of(heads.sink_tokens, heads.page_size))
        local = max(sink, max(0, tokens - heads.local_tokens) // heads.page_size)
        read = torch.zeros(heads.kv_heads, pages, dtype=torch.bool)
        read[:, :sink] = read[:, local:] = True
        wanted = min(local - sink, max(0, budget - sink - (pages - local)))
        mass = softmax.cap_mass(self.log_mass(row, query, softmax)[..., : tokens // heads.page_size], heads.page_size)
        everything = torch.cat([mass, self.sinks(softmax)], -1)
        scores = mass.sum(1) if heads.selector.name == "block_mean" else torch.softmax(everything, -1).sum(1)
        return read.scatter(1, sink + scores[:, sink:local].topk(wanted).indices, True)

    def expected(self, row: int, read: torch.Tensor, query: torch.Tensor, softmax: Softmax) -> torch.Tensor:
        """Attention of one request over the pages read, and over the others' estimates: float64 [heads, head_size]."""
        heads, (keys, values) = self.heads, self.tokens(row)
        q = query.double().view(heads.kv_heads, heads.num_queries_per_kv, heads.head_size)
        token_read = read.repeat_interleave(heads.page_size, 1)[:, None, : self.seq_lens[row]]
        logits = softmax.cap(q @ keys.mT * softmax.scale).masked_fill(~token_read, -torch.inf)
        if heads.selector.residual and not read.all():
            mass = softmax.cap_mass(self.log_mass(row, query, softmax)[..., : read.shape[1]], heads.page_size)
            dropped = mass.masked_fill(read[:, None], -torch.inf)
            logits = torch.cat([logits, dropped], -1)
            means = self.summaries(row)[3].double().unflatten(0, (heads.kv_heads, -1)).flatten(1, 2)
            together = heads.pages_of_tile // means_of_block(heads.page_size)
            of_page = means.repeat_interleave(together, 1)[:, : read.shape[1]]
            # Where no page is complete there is no mean, and nothing dropped.
            values = torch.cat([values, of_page.masked_fill(read[..., None], 0)], 1)
        weights = torch.softmax(torch.cat([logits, self.sinks(softmax)], -1), -1)[..., : values.shape[1]]
        return (weights @ values).flatten(0, 1)

    def sinks(self, softmax: Softmax) -> torch.Tensor:
        """float64 [kv_heads, num_queries_per_kv, 1], or 0 in the place of 1 where there are none."""
        shape = self.heads.kv_heads, self.heads.num_queries_per_kv
        return torch.empty(*shape, 0) if softmax.sinks is None else softmax.sinks.double().view(*shape, 1)
