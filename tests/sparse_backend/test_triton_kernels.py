from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton")

from sparse_backend.kernels import Heads, Softmax
from sparse_backend.kernels.triton import decode, layout, update_summaries
from sparse_backend.selection import BlockMean, LowRank, Quest
from sparse_backend.selection.low_rank import quantise
from tests.sparse_backend.gpu_caches import DEVICE, Paged

SELECTORS = {kind.name: kind for kind in (BlockMean, LowRank, Quest)}  # found without an installed package
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
# head size, query heads per KV head, page size
SHAPES = [(64, 3, 16), (128, 2, 16), (128, 8, 32), (96, 1, 32), (256, 16, 64), (64, 4, 8)]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.manual_seed(0)
    monkeypatch.setattr(layout, "SMS", 6)  # two splits for three requests: the interpreter is slow
    with DEVICE:
        yield


def make_heads(
    selector: str, dtype: torch.dtype, head_size: int, queries: int, page_size: int, kv_heads: int = 2
) -> Heads:
    return Heads(kv_heads, queries, head_size, page_size, dtype, SELECTORS[selector](), 16, 40)


def summarised(heads: Heads, seq_lens: list[int]) -> Paged:
    paged = Paged.random(heads, seq_lens)
    update_summaries(heads, paged.step([0] * len(seq_lens), seq_lens), paged.cache, paged.tiles, max(seq_lens))
    return paged


def run(
    paged: Paged, budgets: list[int], query: torch.Tensor, softmax: float | Softmax
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Output, and for every request the pages read as bool [kv_heads, pages]."""
    heads, output = paged.heads, torch.zeros_like(query)
    work = paged.workspace(max(budgets) * heads.page_size)
    decode(
        heads,
        paged.step(budgets),
        query,
        paged.cache,
        paged.tiles,
        output,
        softmax if isinstance(softmax, Softmax) else Softmax(softmax),
        work,
    )
    reads = []
    for row, tokens in enumerate(paged.seq_lens):
        read = torch.zeros(heads.kv_heads, -(-tokens // heads.page_size), dtype=torch.bool)
        for head in range(heads.kv_heads) if budgets[row] else ():
            chosen = paged.logical(row, work.table[row, head, : work.counts[row, head]])
            assert chosen == sorted(set(chosen))
            read[head, chosen] = True
        reads.append(read)
    return output, reads


@pytest.mark.parametrize("selector", ["low_rank", "block_mean", "quest"])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("head_size", "queries", "page_size"), SHAPES)
def test_selection_and_attention_equal_the_reference(
    selector: str, dtype: torch.dtype, head_size: int, queries: int, page_size: int
) -> None:
    heads = make_heads(selector, dtype, head_size, queries, page_size)
    paged = Paged.random(heads, [331, 140, 270])
    paged.write_summaries()
    # Two budgets, and a request in the middle that is dense in this step.
    budgets = [256 // page_size, 0, 224 // page_size]
    query, scale = torch.randn(3, 2 * queries, head_size).to(dtype), head_size**-0.5
    output, reads = run(paged, budgets, query, scale)
    assert not output[1].any()
    for row in (0, 2):
        expected = paged.expected_pages(row, budgets[row], query[row], Softmax(scale))
        assert torch.equal(reads[row].sum(1), expected.sum(1))
        # Scores of 16-bit queries are rounded; two pages with nearly the same may change places.
        assert (reads[row] != expected).sum() <= (0 if dtype == torch.float32 else 2)
        attention = paged.expected(row, reads[row], query[row], Softmax(scale))
        torch.testing.assert_close(output[row].double(), attention, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize(("head_size", "queries", "page_size"), SHAPES)
def test_low_rank_summaries_equal_the_reference(head_size: int, queries: int, page_size: int) -> None:
    paged = summarised(make_heads("low_rank", torch.float32, head_size, queries, page_size), [256])
    for got, expected in zip(paged.summaries(0), paged.expected_summaries(0), strict=True):
        assert (got.view(expected.shape) - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("selector", ["low_rank", "block_mean", "quest"])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_a_budget_that_covers_the_context_is_dense_attention(selector: str, dtype: torch.dtype) -> None:
    paged = Paged.random(make_heads(selector, dtype, 64, 3, 16), [333, 16])
    query = torch.randn(2, 6, 64).to(dtype)
    output, reads = run(paged, [21, 24], query, 0.125)
    assert all(read.all() for read in reads)
    for row in (0, 1):
        keys, values = paged.tokens(row)
        dense = torch.softmax(query[row].double().view(2, 3, 64) @ keys.mT * 0.125, -1) @ values
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(output[row].double(), dense.flatten(0, 1), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("selector", ["low_rank", "quest"])
@pytest.mark.parametrize(("soft_cap", "sinks"), [(9.0, False), (0.0, True), (9.0, True)])
def test_sinks_and_soft_caps_are_terms_of_the_softmax(selector: str, soft_cap: float, sinks: bool) -> None:
    paged = Paged.random(make_heads(selector, torch.float32, 64, 3, 16), [333])
    paged.write_summaries()
    query = 2 * torch.randn(1, 6, 64)
    softmax = Softmax(0.125, soft_cap, 3 + torch.randn(6) if sinks else None)
    for budget in (8, 24):
        output, (read,) = run(paged, [budget], query, softmax)
        assert torch.equal(read, paged.expected_pages(0, budget, query[0], softmax))
        torch.testing.assert_close(output[0].double(), paged.expected(0, read, query[0], softmax), atol=5e-5, rtol=5e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sinks_may_have_the_model_s_type(dtype: torch.dtype) -> None:
    paged = Paged.random(make_heads("low_rank", torch.float32, 64, 3, 16), [333])
    paged.write_summaries()
    query, sinks = torch.randn(1, 6, 64), (3 + torch.randn(6)).to(dtype)
    outputs = [run(paged, [8], query, Softmax(0.125, 0.0, x))[0] for x in (sinks, sinks.float())]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("selector", ["low_rank", "quest"])
def test_waves_and_splits_give_the_same(selector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paged = Paged.random(make_heads(selector, torch.float32, 64, 2, 16), [300, 140, 390])
    paged.write_summaries()
    query = torch.randn(3, 4, 64)
    output, _ = run(paged, [8, 7, 9], query, 0.125)
    monkeypatch.setattr(layout, "MAX_WAVE", 2)
    monkeypatch.setattr(layout, "SMS", 24)
    assert len(paged.workspace(144).waves(3)) == 2
    heads, again = paged.heads, torch.zeros_like(query)
    decode(heads, paged.step([8, 7, 9]), query, paged.cache, paged.tiles, again, Softmax(0.125), paged.workspace(144))
    torch.testing.assert_close(again, output)


def test_small_values_of_light_pages_count_in_float16() -> None:
    """Behind an attention sink that has nearly all the mass, and no value."""
    paged = Paged.random(make_heads("low_rank", torch.float16, 64, 1, 16, 1), [400])
    query, keys, values = torch.randn(1, 1, 64).half(), paged.cache[..., :64], paged.cache[..., 64:]
    keys.mul_(0.05)
    values.add_(2).mul_(0.005)
    first = paged.block_table[0, 0]
    keys[first, 0, 0] = query[0, 0] * (100 / query.norm() ** 2)  # a logit of 12.5
    values[first, 0, 0] = 0
    update_summaries(paged.heads, paged.step([0], [400]), paged.cache, paged.tiles, 400)
    output, (read,) = run(paged, [8], query, 0.125)
    expected = paged.expected(0, read, query[0], Softmax(0.125))
    assert (output[0] - expected).norm() < 0.02 * expected.norm()


def test_pages_with_equal_scores_are_taken_in_order() -> None:
    heads = make_heads("quest", torch.float32, 64, 1, 16)
    paged = Paged.random(heads, [256])
    paged.cache.zero_()
    paged.write_summaries()
    _, (read,) = run(paged, [8], torch.randn(1, 2, 64), 0.125)
    assert read[0].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 13, 14, 15]


@pytest.mark.parametrize("selector", ["low_rank", "block_mean", "quest"])
def test_summaries_written_token_by_token_equal_those_of_one_prefill(selector: str) -> None:
    heads = make_heads(selector, torch.bfloat16, 64, 1, 32)
    seq_lens = [150, 200]
    paged = summarised(heads, seq_lens)
    at_once = paged.tiles.clone()
    paged.tiles.zero_()
    # Request 0 in chunks, the last ones single tokens; request 1 preempted in between and done again from 0.
    for lengths, new in [
        ([100, 190], [100, 190]),
        ([159, 140], [59, 140]),
        ([160, 192], [1, 52]),
        ([150, 200], [1, 8]),
    ]:
        paged.seq_lens = lengths
        update_summaries(heads, paged.step([0, 0], new), paged.cache, paged.tiles, max(new))
    written = [(0, 0), (0, 1), (1, 0), (1, 1)]
    for row, block in written:
        tile = paged.block_table[row, block]
        if (row, block) == (0, 1):
            continue  # it had one page more when it was at 160 tokens
        assert torch.equal(paged.tiles[tile], at_once[tile])


@pytest.mark.parametrize("page_size", [8, 16, 64])
def test_mean_values_are_of_the_pages_complete_so_far(page_size: int) -> None:
    heads = make_heads("low_rank", torch.float32, 64, 1, page_size)
    paged = Paged.random(heads, [192])
    together = max(32, page_size)
    for tokens in range(100, 193):
        paged.seq_lens = [tokens]
        new = 100 if tokens == 100 else 1
        update_summaries(heads, paged.step([0], [new]), paged.cache, paged.tiles, new)
        values = paged.tokens(0)[1][:, : tokens // page_size * page_size].float()
        means = torch.stack([some.mean(1) for some in values.split(together, 1)], 1)
        codes, scale = quantise(means, 7)
        got = paged.summaries(0)[3].unflatten(0, (heads.kv_heads, -1)).flatten(1, 2)[:, : means.shape[1]]
        torch.testing.assert_close(got, codes * scale)


def test_heads_that_look_at_pages_read_anyway_have_no_say() -> None:
    heads = make_heads("low_rank", torch.float32, 64, 2, 16, 1)
    paged = Paged.random(heads, [256])
    query = torch.zeros(1, 2, 64)
    query[0, 0, 0] = query[0, 1, 1] = 8
    paged.cache.mul_(0.01)
    block, keys = paged.block_table[0, 0], paged.cache[..., :64]
    keys[block, 0, :16, 0] = 9  # the sink, at which the first head looks, and a little at page 5
    keys[block, 0, 80:96, 0] = 3
    keys[block, 0, 96:112, 1] = 1  # page 6, at which the second head looks
    update_summaries(heads, paged.step([0], [256]), paged.cache, paged.tiles, 256)
    _, (read,) = run(paged, [5], query, 1.0)
    assert read[0].nonzero().flatten().tolist() == [0, 6, 13, 14, 15]


def test_a_request_that_completes_no_page_writes_nothing() -> None:
    paged = Paged.random(make_heads("low_rank", torch.float32, 64, 1, 16), [47, 130])
    update_summaries(paged.heads, paged.step([0, 0], [15, 1]), paged.cache, paged.tiles, 15)
    assert not paged.tiles.any()


def test_pages_whose_logits_spread_beyond_float32_have_masses_all_the_same() -> None:
    heads = make_heads("low_rank", torch.float32, 64, 1, 16)
    paged = Paged.random(heads, [300])
    paged.cache[..., :64] *= 100
    update_summaries(heads, paged.step([0], [300]), paged.cache, paged.tiles, 300)
    output, (read,) = run(paged, [8], torch.randn(1, 2, 64), 1.0)
    assert output.isfinite().all()
    assert read.sum(1).tolist() == [8, 8]
