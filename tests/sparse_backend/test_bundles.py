"""Which requests are found to begin with the same pages, and that those are scored together as each would be alone."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")  # which there is for Linux on x86-64 alone

from sparse_backend.constants import BLOCK
from sparse_backend.kernels import Heads, Softmax
from sparse_backend.kernels.triton import DecodeStep, bundle_requests, decode, layout, plan_step, score_pages
from sparse_backend.selection import BlockMean, LowRank, Quest
from tests.sparse_backend.gpu_caches import DEVICE, Paged

SELECTORS = {kind.name: kind for kind in (BlockMean, LowRank, Quest)}  # found without an installed package
PAGES = 8  # of a block, where pages have 16 tokens
PROMPT = [5, 2, 9, 4, 7, 1, 3, 8]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.manual_seed(0)
    monkeypatch.setattr(layout, "SMS", 6)  # the interpreter is slow
    with DEVICE:
        yield


def int32(values: object) -> torch.Tensor:
    return torch.tensor(values).int()


def step_of(tables: list[list[int]], seq_lens: list[int], budgets: list[int] | None = None) -> DecodeStep:
    batch, width = len(tables), max(map(len, tables))
    table = int32([row + [0] * (width - len(row)) for row in tables])
    return DecodeStep(
        torch.arange(batch + 1).int(),
        int32(seq_lens),
        table,
        int32(budgets or [4] * batch),
        torch.full((batch, layout.MEMBERS), 99).int(),  # what another step left
        torch.zeros(batch).int(),
    )


def bundles_of(step: DecodeStep, wave: int = 16) -> list[tuple[list[int], int]]:
    """Members of each bundle, and blocks that it shares."""
    batch = len(step.seq_lens)
    bundle_requests(step, torch.full((batch, wave), 99).int(), BLOCK // PAGES)
    found, shared = [], step.shared_pages.tolist()
    for first in range(0, batch, wave):
        rows = [[m for m in row if m >= 0] for row in step.bundles[first : first + wave].tolist()]
        real = [row for row in rows if row]
        assert rows == real + [[]] * (len(rows) - len(real))  # a wave's bundles are its first rows
        assert len(real) <= min(wave, batch - first) // 2
        for members in real:
            assert all(first <= member < first + wave for member in members)
            (pages,) = {shared[member] for member in members}
            found.append((members, pages // PAGES))
    bundled = [member for members, _ in found for member in members]
    assert len(bundled) == len(set(bundled))
    assert all(pages == 0 for request, pages in enumerate(shared) if request not in bundled)
    return found


def samples(prompt: list[int], count: int, first: int = 100) -> list[list[int]]:
    """Block tables of samples of one prompt, each with a block of its own."""
    return [[*prompt, first + i] for i in range(count)]


def lens(tables: list[list[int]]) -> list[int]:
    return [len(table) * BLOCK - 1 - i for i, table in enumerate(tables)]


def bundled(tables: list[list[int]], budgets: list[int] | None = None, wave: int = 16) -> list[tuple[list[int], int]]:
    return bundles_of(step_of(tables, lens(tables), budgets), wave)


def test_samples_of_one_prompt_are_one_bundle() -> None:
    assert bundled(samples(PROMPT, 5)) == [([0, 1, 2, 3, 4], len(PROMPT))]


def test_prompts_behind_one_system_prompt_are_bundles_of_their_own() -> None:
    system = [40, 41, 42]
    a, b = samples([*system, *PROMPT], 3), samples([*system, *range(60, 70)], 2, 200)
    assert bundled([a[0], b[0], a[1], b[1], a[2]]) == [([0, 2, 4], 11), ([1, 3], 13)]


def test_requests_that_have_no_more_than_a_system_prompt_in_common_share_that() -> None:
    system = [40, 41, 42]
    alone = [[*system, *range(first, first + 9)] for first in (50, 60, 70)]
    assert bundled([*samples([*system, *PROMPT], 2), *alone]) == [([0, 1], 11), ([2, 3, 4], 3)]


def test_branches_that_fork_near_each_other_are_one_bundle_and_far_ones_are_two() -> None:
    trunk = list(range(10, 30))
    near = [[*trunk[:16], 50, 51], [*trunk, 52], [*trunk, 53], [*trunk[:18], 54]]
    assert bundled(near) == [([0, 1, 2, 3], 16)]
    assert bundled([*near, *samples(trunk[:8], 2)]) == [([0, 1, 2, 3], 16), ([4, 5], 8)]


def test_dense_requests_are_in_no_bundle() -> None:
    assert bundled(samples(PROMPT, 4), budgets=[4, 0, 4, 4]) == [([0, 2, 3], len(PROMPT))]
    assert bundled(samples(PROMPT, 3), budgets=[4, 0, 0]) == []


def test_more_samples_than_a_bundle_holds_are_dealt_out_evenly() -> None:
    found = bundled(samples(PROMPT, layout.MEMBERS + 1))
    assert found == [([0, 2, 4, 6, 8], len(PROMPT)), ([1, 3, 5, 7], len(PROMPT))]
    assert [len(members) for members, _ in bundled(samples(PROMPT, 20), wave=32)] == [7, 7, 6]


def test_a_bundle_lies_within_a_wave() -> None:
    assert bundled(samples(PROMPT, 7), wave=4) == [([0, 1, 2, 3], 8), ([4, 5, 6], 8)]
    assert bundled(samples(PROMPT, 5), wave=4) == [([0, 1, 2, 3], 8)]


def test_blocks_in_common_behind_others_are_not_a_prefix() -> None:
    assert bundled([[30, *PROMPT], [31, *PROMPT], [32, *PROMPT]]) == []
    assert bundled([[1, 30, *PROMPT], [1, 31, *PROMPT]]) == [([0, 1], 1)]


def test_requests_of_different_prompts_share_nothing() -> None:
    assert bundled([[i * 10 + block for block in range(8)] for i in range(6)]) == []


def test_incomplete_blocks_and_what_lies_behind_a_request_are_not_shared() -> None:
    tables = [PROMPT, PROMPT, PROMPT]
    assert bundles_of(step_of(tables, [5 * BLOCK, 8 * BLOCK, 6 * BLOCK - 1])) == [([0, 1, 2], 5)]
    assert bundles_of(step_of(tables, [BLOCK - 1] * 3)) == []
    assert bundles_of(step_of(tables, [700, 0, 700])) == [([0, 2], 5)]  # a row of padding


@pytest.mark.parametrize("common", [63, 64, 65, 130])
def test_prefixes_longer_than_what_is_compared_at_a_time(common: int) -> None:
    prompt = list(range(1000, 1000 + common))
    assert bundled([[*prompt, 1, 2, 3], [*prompt, 4, 2, 3], [*prompt, 5, 2, 3]]) == [([0, 1, 2], common)]


def test_random_trees_share_what_all_members_begin_with() -> None:
    for _ in range(10):
        tables = [torch.randint(0, 100, (6,)).tolist()]
        while len(tables) < 24:
            parent = tables[int(torch.randint(0, len(tables), ()))]
            fork = int(torch.randint(0, 7, ()))
            tables.append(
                [*parent[:fork], *torch.randint(100 * len(tables), 100 * len(tables) + 99, (6,)).tolist()][:6]
            )
        seq_lens = torch.randint(1, 6 * BLOCK, (24,)).tolist()
        found = bundles_of(step_of(tables, seq_lens))
        assert found
        for members, blocks in found:
            whole = min(seq_lens[m] // BLOCK for m in members)
            prefixes = [tables[m][:whole] for m in members]
            same = next((i for i, column in enumerate(zip(*prefixes, strict=True)) if len(set(column)) > 1), whole)
            assert 0 < blocks == same
            assert 2 <= len(members) <= layout.MEMBERS


def test_buffers_of_another_step_leave_nothing_behind() -> None:
    """As under a CUDA graph: the same tensors, other requests."""
    step = step_of(samples(PROMPT, 4), [9 * BLOCK - 1] * 4)
    budgets, pages, dense = torch.full((2, 4), 64).int(), torch.zeros(1, 4).int(), torch.zeros(4).int()
    assert bundles_of(step) == [([0, 1, 2, 3], 8)]

    def again(seq_lens: list[int]) -> list[tuple[list[int], int]]:
        step.seq_lens.copy_(int32(seq_lens))
        plan_step(step.query_start, step.seq_lens, budgets, pages, dense, step.shared_pages, 0)
        step.page_budget.copy_(pages[0])
        return bundles_of(step)

    assert again([9 * BLOCK, 50, 3 * BLOCK, 9 * BLOCK]) == [([0, 3], 8)]
    step.block_table[0, 0] = 77
    assert again([9 * BLOCK] * 4) == [([1, 2, 3], 8)]
    step.block_table[:, 0] = torch.arange(4)
    assert again([9 * BLOCK] * 4) == []
    step.shared_pages.fill_(64)
    alone = DecodeStep(*(getattr(step, name)[:1] for name in step.__dataclass_fields__))
    plan_step(step.query_start[:2], alone.seq_lens, budgets, pages, dense, alone.shared_pages, 0)
    assert bundles_of(alone) == []


def paged_tree(heads: Heads) -> tuple[Paged, list[int]]:
    """Three samples of one prompt, a dense request, two samples of another, one alone, and budgets in pages."""
    paged = Paged.random(heads, [331, 270, 300, 290, 200, 260, 310])
    table = paged.block_table
    table[[1, 2], :2] = table[0, :2].clone()
    table[3, :2] = table[0, :2].clone()
    table[5, :1] = table[4, :1].clone()
    paged.write_summaries()
    return paged, [n // heads.page_size for n in (192, 160, 192, 0, 128, 192, 192)]


def masses(paged: Paged, step: DecodeStep, query: torch.Tensor, softmax: Softmax) -> torch.Tensor:
    work = paged.workspace(256)
    work.log_mass.fill_(float("nan"))
    for wave in work.waves(len(step.seq_lens)):
        score_pages(paged.heads, step, query, paged.tiles, softmax, work, *wave)
    return work.log_mass


@pytest.mark.parametrize(
    ("selector", "dtype", "head_size", "queries", "page_size", "soft_cap"),
    [
        ("low_rank", torch.float32, 64, 1, 16, 0.0),
        ("low_rank", torch.float32, 64, 3, 8, 9.0),
        ("low_rank", torch.bfloat16, 128, 4, 16, 0.0),
        ("low_rank", torch.bfloat16, 64, 8, 32, 0.0),
        ("low_rank", torch.float32, 128, 8, 64, 9.0),
        ("quest", torch.bfloat16, 64, 3, 8, 9.0),
        ("quest", torch.float32, 128, 4, 16, 0.0),
        ("block_mean", torch.float32, 64, 1, 16, 0.0),
        ("block_mean", torch.bfloat16, 128, 8, 64, 9.0),
    ],
)
def test_scores_of_shared_pages_are_those_of_each_request_alone(
    selector: str, dtype: torch.dtype, head_size: int, queries: int, page_size: int, soft_cap: float
) -> None:
    heads = Heads(2, queries, head_size, page_size, dtype, SELECTORS[selector](), 16, 40)
    paged, budgets = paged_tree(heads)
    query, softmax = torch.randn(7, 2 * queries, head_size).to(dtype), Softmax(head_size**-0.5, soft_cap)
    step = paged.step(budgets)
    of_block = BLOCK // page_size
    assert step.shared_pages.tolist() == [n * of_block for n in (2, 2, 2, 0, 1, 1, 0)]
    together = masses(paged, step, query, softmax)
    alone = masses(
        paged, replace(step, shared_pages=step.shared_pages * 0, bundles=step.bundles * 0 - 1), query, softmax
    )
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4, equal_nan=True)
    for row, (tokens, budget) in enumerate(zip(paged.seq_lens, budgets, strict=True)):
        complete = tokens // page_size
        written = together[row, ..., :complete]
        assert written.isnan().all() if budget == 0 else written.isfinite().all()
        if budget and dtype == torch.float32:
            expected = softmax.cap_mass(paged.log_mass(row, query[row], softmax)[..., :complete], page_size)
            torch.testing.assert_close(written.double(), expected, atol=1e-3, rtol=1e-3)


def test_members_whose_budget_covers_their_pages_are_not_scored() -> None:
    heads = Heads(2, 2, 64, 16, torch.float32, LowRank(), 16, 40)
    paged, budgets = paged_tree(heads)
    query, step = torch.randn(7, 4, 64), paged.step(budgets)
    step.page_budget[[1, 4, 5]] = 64  # as in a model's first layer
    found = masses(paged, step, query, Softmax(0.125))
    assert found[[1, 4, 5]].isnan().all()
    alone = masses(
        paged, replace(step, shared_pages=step.shared_pages * 0, bundles=step.bundles * 0 - 1), query, Softmax(0.125)
    )
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4, equal_nan=True)


@pytest.mark.parametrize(("selector", "wave"), [("low_rank", 2), ("low_rank", 64), ("quest", 2), ("block_mean", 64)])
def test_samples_of_one_prompt_attend_as_the_reference_does(
    selector: str, wave: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MAX_WAVE", wave)
    heads = Heads(2, 3, 64, 16, torch.float32, SELECTORS[selector](), 16, 40)
    paged, budgets = paged_tree(heads)
    query, softmax, work = torch.randn(7, 6, 64), Softmax(0.125), paged.workspace(192)
    output, step = torch.zeros_like(query), paged.step(budgets)
    assert (step.shared_pages > 0).tolist() == [True, True, wave > 2, False, True, True, False]
    decode(heads, step, query, paged.cache, paged.tiles, output, softmax, work)
    assert not output[3].any()
    for row, budget in enumerate(budgets):
        if budget:
            read = paged.expected_pages(row, budget, query[row], softmax)
            expected = paged.expected(row, read, query[row], softmax)
            torch.testing.assert_close(output[row].double(), expected, atol=1e-5, rtol=1e-5)
