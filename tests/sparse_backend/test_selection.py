from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sparse_backend.config import SparseAttentionConfig
from sparse_backend.selection import get_selector, selector_names
from sparse_backend.selection.low_rank import LowRank, both_nibbles, nibbles, unpack

SELECTORS = ["low_rank", "block_mean", "quest", "exact"]


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("layers", [1, 2, 12, 28, 64])
@pytest.mark.parametrize("first", [True, False])
def test_sparse_layers_together_spend_the_budget(name: str, layers: int, first: bool) -> None:
    of_first, of_others = get_selector(name).layer_budgets(1024, layers, first)
    spent = of_first + (layers - 1) * of_others if first else layers * of_others
    assert 1024 * layers - layers <= spent <= 1024 * layers


def test_only_the_first_layer_of_a_model_has_a_larger_budget() -> None:
    first, others = LowRank().layer_budgets(1024, 28, True)
    assert first > 1024 > others
    assert LowRank().layer_budgets(1024, 28, False)[1] == 1024


class Endings(LowRank):
    name = "endings"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a package that has entry points for selectors."""

    def install(package: str, **selectors: str) -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in selectors.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[sparse_backend.selectors]", *lines]))

    monkeypatch.syspath_prepend(str(tmp_path))
    return install


def test_selectors_of_other_packages_are_found_by_name(installed: Callable[..., None]) -> None:
    installed("theirs", endings=f"{__name__}:Endings")
    assert "endings" in selector_names()
    assert type(get_selector("endings")).__name__ == "Endings"
    assert SparseAttentionConfig(selector="endings").selector == "endings"


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(LookupError, match="block_mean, exact, low_rank, quest"):
        get_selector("best")


def test_two_packages_with_one_name_are_refused(installed: Callable[..., None]) -> None:
    installed("one", endings="one:Endings")
    installed("two", endings="two:Endings")
    with pytest.raises(LookupError, match="two packages call a selector 'endings', one:Endings and two:Endings"):
        get_selector("endings")


def test_an_entry_point_that_is_no_selector_is_refused(installed: Callable[..., None]) -> None:
    installed("odd", odd="collections:OrderedDict")
    with pytest.raises(TypeError, match=r"not a subclass of sparse_backend\.selection\.Selector"):
        get_selector("odd")


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
