import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sparse_backend import constants, kernels
from sparse_backend.kernels import Kernels, native
from sparse_backend.kernels.batch import Softmax, keys_and_values
from sparse_backend.kernels.reference import ReferenceKernels
from sparse_backend.selection import LowRank, Quest, get_selector
from sparse_backend.selection.low_rank import unpack
from tests.sparse_backend.caches import Paged, make_heads

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
SHAPES = [(64, 3, 16), (64, 2, 8), (128, 2, 16), (128, 8, 32), (80, 7, 32), (64, 5, 64), (32, 1, 16), (96, 6, 8)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def fast(architecture: str = "native") -> native.NativeKernels:
    return native.NativeKernels(native.load(architecture))


@needs_compiler
@pytest.mark.parametrize("selector", ["low_rank", "block_mean", "quest", "exact"])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("head_size", "queries", "page_size"), SHAPES)
def test_selection_and_attention_equal_the_reference(
    selector: str, dtype: torch.dtype, head_size: int, queries: int, page_size: int
) -> None:
    heads = make_heads(selector, dtype, head_size, queries, page_size)
    paged = Paged.random(heads, [1111, 640, 777])
    fast().update_summaries(heads, paged.batch({}), paged.cache, paged.tiles, *paged.everything())
    batch = paged.batch({2: 448, 0: 576})
    query = (2 * torch.randn(3, 2 * queries, head_size)).to(dtype)
    scale = Softmax(head_size**-0.5)

    pages, counts = fast().select_pages(heads, batch, query, paged.tiles, scale)
    expected_pages, expected_counts = ReferenceKernels().select_pages(heads, batch, query, paged.tiles, scale)
    assert torch.equal(counts, expected_counts)
    assert torch.equal(pages, expected_pages)

    output, expected = torch.zeros_like(query), torch.zeros_like(query)
    fast().decode(heads, batch, query, paged.cache, paged.tiles, output, scale)
    ReferenceKernels().decode(heads, batch, query, paged.cache, paged.tiles, expected, scale)
    torch.testing.assert_close(output, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    assert not output[1].any()  # a row that does not decode sparsely is left alone


@needs_compiler
@pytest.mark.parametrize("selector", ["low_rank", "block_mean", "quest", "exact"])
@pytest.mark.parametrize("soft_cap", [0.0, 9.0])
@pytest.mark.parametrize("sinks", [False, True])
def test_sinks_and_soft_caps_are_terms_of_the_softmax(selector: str, soft_cap: float, sinks: bool) -> None:
    heads = make_heads(selector, torch.float32, 64, 3, 16)
    paged = Paged.random(heads, [777, 900])
    fast().update_summaries(heads, paged.batch({}), paged.cache, paged.tiles, *paged.everything())
    query, logits = torch.randn(2, 6, 64), 3 + torch.randn(6) if sinks else None
    softmax = Softmax(0.125, soft_cap, logits)
    for budgets in ({0: 320, 1: 448}, {0: 4096, 1: 4096}):
        batch, outputs = paged.batch(budgets), [torch.zeros_like(query), torch.zeros_like(query)]
        both: tuple[Kernels, ...] = (fast(), ReferenceKernels())
        for kernel, output in zip(both, outputs, strict=True):
            kernel.decode(heads, batch, query, paged.cache, paged.tiles, output, softmax)
        torch.testing.assert_close(*outputs, atol=5e-5, rtol=5e-5)
    torch.testing.assert_close(outputs[0].double(), paged.dense(query, softmax), atol=5e-5, rtol=0.0)


@needs_compiler
@pytest.mark.parametrize("selector", ["low_rank", "block_mean", "quest"])
@pytest.mark.parametrize(("head_size", "queries", "page_size"), SHAPES[:6])
def test_summaries_equal_the_reference(selector: str, head_size: int, queries: int, page_size: int) -> None:
    heads = make_heads(selector, torch.float32, head_size, queries, page_size)
    paged = Paged.random(heads, [640, 256])
    expected = paged.tiles.clone()
    batch, everything = paged.batch({}), paged.everything()
    fast().update_summaries(heads, batch, paged.cache, paged.tiles, *everything)
    ReferenceKernels().update_summaries(heads, batch, paged.cache, expected, *everything)
    blocks = paged.block_table[:, :: heads.kernel_blocks_of_tile].long() // heads.kernel_blocks_of_tile
    complete = torch.cat([blocks[0, :5], blocks[1, :2]])
    tiles = [t[complete, :, : heads.tile_bytes].flatten(0, 1) for t in (paged.tiles, expected)]
    same = (tiles[0] == tiles[1]).float().mean()
    assert same > 0.99  # a code may round the other way where sums differ in their last bit
    if selector == "low_rank":
        for a, b in zip(*(unpack(t, head_size, page_size) for t in tiles), strict=True):
            assert (a - b).norm() < 0.02 * b.norm()


@needs_compiler
@pytest.mark.parametrize("selector", ["low_rank", "block_mean", "quest", "exact"])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_a_budget_that_covers_the_context_is_dense_attention(selector: str, dtype: torch.dtype) -> None:
    heads = make_heads(selector, dtype, 64, 3, 16)
    paged = Paged.random(heads, [333, 150])
    query = torch.randn(2, 6, 64).to(dtype)
    output = torch.zeros_like(query)
    batch = paged.batch({0: 1024, 1: 1024})
    fast().update_summaries(heads, batch, paged.cache, paged.tiles, *paged.everything())
    fast().decode(heads, batch, query, paged.cache, paged.tiles, output, Softmax(0.125))
    torch.testing.assert_close(output.double(), paged.dense(query, Softmax(0.125)), atol=TOLERANCE[dtype], rtol=0.0)


@needs_compiler
@pytest.mark.parametrize("architecture", ["x86-64", "haswell"])
def test_every_instruction_set_gives_the_same(architecture: str) -> None:
    heads = make_heads("low_rank", torch.bfloat16, 64, 3, 16)
    paged = Paged.random(heads, [900])
    fast().update_summaries(heads, paged.batch({}), paged.cache, paged.tiles, *paged.everything())
    query = torch.randn(1, 6, 64).bfloat16()
    outputs = []
    for kernel in (fast(), fast(architecture)):
        outputs.append(torch.zeros_like(query))
        kernel.decode(heads, paged.batch({0: 320}), query, paged.cache, paged.tiles, outputs[-1], Softmax(0.125))
    torch.testing.assert_close(*outputs, atol=1e-2, rtol=1e-2)


@needs_compiler
@pytest.mark.parametrize("selector", ["low_rank", "block_mean", "quest", "exact"])
@pytest.mark.parametrize(("blocks", "page_size"), [(1, 16), (2, 16), (2, 8), (1, 64)])
def test_blocks_that_keep_their_tiles_give_the_same(selector: str, blocks: int, page_size: int) -> None:
    apart = Paged.random(make_heads(selector, torch.bfloat16, 64, 3, page_size), [900, 700], spare_blocks=2)
    query = torch.randn(2, 6, 64).bfloat16()
    for kernel in (fast(), ReferenceKernels()):
        outputs = []
        for paged in (apart, apart.with_tiles_in_blocks(blocks)):
            kernel.update_summaries(paged.heads, paged.batch({}), paged.cache, paged.tiles, *paged.everything())
            outputs.append(torch.zeros_like(query))
            batch = paged.batch({0: 320, 1: 256})
            kernel.decode(paged.heads, batch, query, paged.cache, paged.tiles, outputs[-1], Softmax(0.125))
        assert torch.equal(*outputs)


@needs_compiler
@pytest.mark.parametrize("position", [5, 500, 890])  # in the sink, among the candidates, in the window
def test_a_key_far_above_all_others_wins(position: int) -> None:
    paged = Paged.random(make_heads("low_rank", torch.float32, 64, 2, 16), [900])
    query = torch.randn(1, 4, 64)
    keys, _ = keys_and_values(paged.cache, 64)
    # Logits of some 250: their exponentials are no floats.
    keys[paged.block_table[0, position // 16], :, :, position % 16] = 30 * query[0].view(2, 2, 64).mean(1)
    fast().update_summaries(paged.heads, paged.batch({}), paged.cache, paged.tiles, *paged.everything())
    output = torch.zeros_like(query)
    fast().decode(paged.heads, paged.batch({0: 256}), query, paged.cache, paged.tiles, output, Softmax(0.25))
    torch.testing.assert_close(output.double(), paged.dense(query, Softmax(0.25)), atol=1e-5, rtol=1e-5)


@needs_compiler
def test_low_rank_is_closer_to_dense_than_the_mean_key() -> None:
    errors = {}
    for selector in ("low_rank", "block_mean"):
        torch.manual_seed(0)
        heads = make_heads(selector, torch.float32, 64, 3, 16)
        paged = Paged.random(heads, [4000])
        query = 1.5 * torch.randn(1, 6, 64)
        output, batch = torch.zeros_like(query), paged.batch({0: 512})
        fast().update_summaries(heads, batch, paged.cache, paged.tiles, *paged.everything())
        fast().decode(heads, batch, query, paged.cache, paged.tiles, output, Softmax(0.125))
        dense = paged.dense(query, Softmax(0.125))
        errors[selector] = ((output - dense).norm() / dense.norm()).item()
    assert errors["low_rank"] < 0.7 * errors["block_mean"]


def test_without_a_compiler_the_reference_takes_over_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("SPARSE_BACKEND_CACHE", str(tmp_path))
    native.load.cache_clear()
    try:
        assert isinstance(kernels.cpu_kernels(get_selector("low_rank")), ReferenceKernels)
        assert [r.message for r in caplog.records if "there is no no-such-compiler" in r.message] == [
            caplog.messages[0]
        ]
    finally:
        native.load.cache_clear()


@needs_compiler
@pytest.mark.parametrize("compiler", ["", " ", "g++ -g0", "env g++"])
def test_the_compiler_may_be_empty_or_have_options(
    compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("SPARSE_BACKEND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "SOURCE", tmp_path / "cpu" / "nothing.cpp")
    native.SOURCE.parent.mkdir()
    native.SOURCE.write_text("int nothing;")
    assert native.build().is_file()


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("SPARSE_BACKEND_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(native.BuildError, match="set SPARSE_BACKEND_CACHE"):
        native.cache_folder()


@needs_compiler
def test_kernels_built_around_other_constants_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    library = native.load()
    for module, name in ((constants, "MAX_QUERIES_PER_KV"), (constants, "BLOCK")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, 32)
            with pytest.raises(native.BuildError, match=f"{name} is 32 in Python and (64|128) in the compiled"):
                native.check_constants(library)
    with monkeypatch.context() as patch:
        codes: dict[Any, int] = {**native.SELECTORS, Quest: 7}
        patch.setattr(native, "SELECTORS", codes)
        with pytest.raises(native.BuildError, match="quest is 7 in Python and 2 in the compiled"):
            native.check_constants(library)
    monkeypatch.setattr(LowRank, "tile_bytes", lambda self, head_size, page_size: head_size)
    with pytest.raises(native.BuildError, match="A tile of low_rank, head size 64 and page size 8 has 64 bytes"):
        native.check_constants(library)


@needs_compiler
@pytest.mark.parametrize(
    ("queries", "head_size", "says"), [(65, 64, "at most 64"), (1, 528, "up to 512"), (1, 72, "multiples of 16")]
)
def test_heads_beyond_the_kernels_buffers_are_refused(queries: int, head_size: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fast().check(make_heads("low_rank", torch.bfloat16, head_size, queries, 16))


@needs_compiler
def test_the_largest_heads_are_served() -> None:
    heads = make_heads("low_rank", torch.float32, constants.MAX_HEAD_SIZE, constants.MAX_QUERIES_PER_KV, 16)
    paged, query = Paged.random(heads, [400]), torch.randn(1, 2 * constants.MAX_QUERIES_PER_KV, constants.MAX_HEAD_SIZE)
    output, expected = torch.zeros_like(query), torch.zeros_like(query)
    fast().check(heads)
    fast().update_summaries(heads, paged.batch({}), paged.cache, paged.tiles, *paged.everything())
    for kernel, out in ((fast(), output), (ReferenceKernels(), expected)):
        kernel.decode(heads, paged.batch({0: 256}), query, paged.cache, paged.tiles, out, Softmax(1 / 64))
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


@needs_compiler
def test_a_stray_entry_among_the_sources_is_no_obstacle_and_a_folder_in_the_place_of_one_is_a_build_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPARSE_BACKEND_CACHE", str(tmp_path / "cache"))
    sources = tmp_path / "cpu"
    (sources / "__pycache__").mkdir(parents=True)
    monkeypatch.setattr(native, "SOURCE", sources / "nothing.cpp")
    native.SOURCE.write_text("int nothing;")
    (sources / "swap.bin").write_bytes(b"\xff\xfe")
    assert native.build().is_file()
    (sources / "more.h").mkdir()
    with pytest.raises(native.BuildError, match="cannot read the sources"):
        native.build()
