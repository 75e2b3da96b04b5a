"""Whatever a scheduler does to the cache, summaries equal those rebuilt from it."""

import shutil

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sparse_backend.constants import BLOCK
from sparse_backend.kernels import DecodeBatch, native
from sparse_backend.kernels.batch import keys_and_values, split_cache
from tests.sparse_backend.caches import make_heads

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")

BLOCKS, WIDTH = 12, 4


class Schedule(RuleBasedStateMachine):
    """Requests that prefill in chunks, decode, are preempted, finish, and fork from others' full blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = make_heads("low_rank", torch.float32, 32, 2, 16)
        share = self.heads.tile_bytes_per_token // 4
        shape = (BLOCKS * self.heads.pages_of_tile, 2, 16, 2 * 32 + share)
        self.cache, self.tiles = split_cache(torch.zeros(shape), self.heads)
        self.kernels = native.NativeKernels(native.load())
        self.requests: list[tuple[list[int], int]] = []  # blocks, tokens
        self.users = [0] * BLOCKS

    def allocate(self) -> int | None:
        free = [b for b in range(BLOCKS) if self.users[b] == 0]
        if not free:
            return None
        self.users[free[-1]] += 1
        return free[-1]

    def batch(self, rows: list[int]) -> DecodeBatch:
        per_block = self.heads.pages_of_tile
        table = torch.zeros(len(rows), WIDTH * per_block, dtype=torch.int32)
        for i, row in enumerate(rows):
            for j, block in enumerate(self.requests[row][0]):
                table[i, j * per_block : (j + 1) * per_block] = block * per_block + torch.arange(per_block)
        lens = torch.tensor([self.requests[row][1] for row in rows], dtype=torch.int32)
        none = torch.zeros(0, dtype=torch.int32)
        return DecodeBatch(lens, table, none, none, none, none)

    def advance(self, steps: list[tuple[int, int]]) -> None:
        """One engine step: (request, new tokens). Writes their keys and values, then updates the summaries."""
        keys, values = keys_and_values(self.cache, 32)
        scheduled, starts = [], []
        for row, new in steps:
            blocks, tokens = self.requests[row]
            new = min(new, WIDTH * BLOCK - tokens)
            while len(blocks) * BLOCK < tokens + new:
                block = self.allocate()
                if block is None:
                    break
                blocks.append(block)
            new = min(new, len(blocks) * BLOCK - tokens)
            if new == 0:
                continue
            for t in range(tokens, tokens + new):
                page = blocks[t // BLOCK] * self.heads.pages_of_tile + t % BLOCK // 16
                keys[page, :, :, t % 16] = torch.randn(2, 32)
                values[page, :, t % 16] = torch.randn(2, 32)
            self.requests[row] = (blocks, tokens + new)
            scheduled.append(row)
            starts.append(tokens)
        if scheduled:
            rows = torch.arange(len(scheduled), dtype=torch.int32)
            start = torch.tensor(starts, dtype=torch.int32)
            self.kernels.update_summaries(self.heads, self.batch(scheduled), self.cache, self.tiles, rows, start)

    @rule()
    def arrive(self) -> None:
        self.requests.append(([], 0))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """A mixed batch: some requests prefill a chunk, others decode one token."""
        rows = data.draw(st.sets(st.integers(0, len(self.requests) - 1), min_size=1, max_size=3))
        self.advance([(row, data.draw(st.sampled_from([1, 1, 7, 16, 40, 130]))) for row in sorted(rows)])

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Finished or preempted: its blocks are free for others, their old summaries still in place."""
        blocks, _ = self.requests.pop(data.draw(st.integers(0, len(self.requests) - 1)))
        for block in blocks:
            self.users[block] -= 1

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        """A request that finds another's full blocks in the prefix cache."""
        blocks, tokens = self.requests[data.draw(st.integers(0, len(self.requests) - 1))]
        shared = blocks[: tokens // BLOCK]
        for block in shared:
            self.users[block] += 1
        self.requests.append((list(shared), len(shared) * BLOCK))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def reject_draft_tokens(self, data: st.DataObject) -> None:
        """Speculative decoding: the last tokens of a request turn out wrong."""
        row = data.draw(st.integers(0, len(self.requests) - 1))
        tokens = self.requests[row][1]
        self.advance([(row, 5)])
        if self.requests[row][1] > tokens:
            self.requests[row] = (self.requests[row][0], tokens + 1)

    @invariant()
    def summaries_equal_rebuilt_ones(self) -> None:
        per_block = self.heads.pages_of_tile
        for row, (blocks, tokens) in enumerate(self.requests):
            if tokens < 16:
                continue
            fresh = torch.zeros_like(self.tiles)
            batch = self.batch([row])
            zero = torch.zeros(1, dtype=torch.int32)
            self.kernels.update_summaries(self.heads, batch, self.cache, fresh, zero, zero)
            complete = tokens // 16
            query = torch.ones(2, 32)
            for i, block in enumerate(blocks):
                pages = min(per_block, complete - i * per_block)
                if pages <= 0:
                    break
                for head in range(2):
                    mass = [
                        self.heads.selector.log_mass(t[block : block + 1, head, : self.heads.tile_bytes], query, 16)
                        for t in (self.tiles, fresh)
                    ]
                    assert torch.equal(mass[0][:, :pages], mass[1][:, :pages])
                    if pages == per_block:
                        assert torch.equal(self.tiles[block, head], fresh[block, head])


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
