import pytest
import torch

from sparse_backend.selection import get_selector
from sparse_backend.selection.low_rank import LowRank, both_nibbles, nibbles, unpack

SELECTORS = ["low_rank", "block_mean", "quest", "exact"]


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("layers", [1, 2, 12, 28, 64])
def test_layers_together_spend_the_budget(name: str, layers: int) -> None:
    selector = get_selector(name)
    spent = sum(selector.layer_budget(1024, layers, layer == 0) for layer in range(layers))
    assert 1024 * layers - layers <= spent <= 1024 * layers


@pytest.mark.parametrize("name", ["low_rank", "block_mean", "quest"])
def test_keys_and_values_read_cost_no_more_bytes_than_the_budget(name: str) -> None:
    selector = get_selector(name)
    assert selector.key_tokens(1024, 16) + selector.value_tokens(1024) <= 2 * 1024


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize(("head_size", "page_size"), [(64, 16), (128, 32), (80, 64)])
def test_a_tile_is_as_large_as_it_says(name: str, head_size: int, page_size: int) -> None:
    selector, pages = get_selector(name), 128 // page_size
    keys, values = torch.randn(2, 3, pages, page_size, head_size)
    assert selector.summarise(keys, values).shape == (3, selector.tile_bytes(head_size, page_size))


def test_low_rank_summaries_cost_a_tenth_of_the_keys() -> None:
    assert LowRank().tile_bytes(128, 16) < 128 * 128 * 2 / 10


def test_four_bit_codes_survive_packing() -> None:
    low, high = torch.randint(-7, 8, (2, 5, 64)).float()
    restored = both_nibbles(nibbles(low, high).to(torch.uint8))
    assert torch.equal(restored[0], low)
    assert torch.equal(restored[1], high)


def test_keys_of_rank_three_are_restored() -> None:
    torch.manual_seed(0)
    keys = torch.randn(1, 8, 1, 64) + torch.randn(1, 8, 16, 3) @ torch.randn(1, 8, 3, 64)
    tiles = LowRank().summarise(keys, keys)
    mean, directions, coefficients = unpack(tiles, 64, 16)
    restored = mean[..., None, :] + coefficients.mT @ directions
    assert (restored - keys).norm() < 0.15 * keys.norm()


def test_log_mass_estimates_the_mass_of_each_page() -> None:
    torch.manual_seed(0)
    keys = torch.randn(2, 8, 1, 64) + torch.randn(2, 8, 16, 2) @ torch.randn(2, 8, 2, 64)
    query = torch.randn(3, 64) / 8
    exact = torch.einsum("gd,bptd->gbpt", query, keys).logsumexp(-1).flatten(1)
    estimate = LowRank().log_mass(LowRank().summarise(keys, keys), query, 16)
    assert (estimate - exact).abs().mean() < 0.1


def test_quest_never_scores_a_page_below_its_best_key() -> None:
    torch.manual_seed(0)
    keys = torch.randn(1, 8, 16, 64).bfloat16().float()
    selector, query = get_selector("quest"), torch.randn(2, 64)
    best = torch.einsum("gd,bptd->gbpt", query, keys).amax(-1).flatten(1)
    assert (selector.log_mass(selector.summarise(keys, keys), query, 16) >= best - 1e-4).all()
