"""What an engine says of itself, and what that makes of its models and their prices."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kinetics_serve.cost import DENSE, Architecture, AttentionLayers, KVPolicy, Price
from kinetics_serve.engine.client import new_client
from kinetics_serve.engine.info import EngineInfo, SparseAttention, read_info
from kinetics_serve.engine.pool import Pool
from kinetics_serve.engine.upstream import Upstream
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, FakeVllm, metrics_of, running_fake_vllm

FULL = AttentionLayers(10, query_heads=8, kv_heads=2, head_size=64)
CHECKPOINT = Architecture("m", 1_000_000, 1_000_000, (FULL, replace(FULL, count=20, window=128)))
SPARSE = SparseAttention(512, 112, 0, 16, 218.88, 10, "")


@pytest.fixture
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        yield fake


def test_an_engine_without_the_plugin_is_dense() -> None:
    info = read_info(metrics_of(FakeVllm("")))
    assert info == EngineInfo(kv_block=128)
    assert info.kv_policy(CHECKPOINT) == DENSE
    assert info.architecture(CHECKPOINT) == CHECKPOINT
    assert read_info("") == EngineInfo()


def test_the_plugins_word_is_the_policy_and_the_cache() -> None:
    info = read_info(metrics_of(FakeVllm("", kv_budget=300, kv_cache_dtype="float32")))
    assert info.sparse == SparseAttention(300, 112, 0, 16, 54.72, 2, "")
    assert info.kv_cache_dtype == "float32"
    checkpoint = Architecture("m", 10, 10, (AttentionLayers(2, query_heads=4, kv_heads=2, head_size=16),))
    known = info.architecture(checkpoint)
    assert known == replace(checkpoint, kv_bytes=4)
    assert info.kv_policy(known) == KVPolicy(300, 16, 54.72 / (16 * 4))  # as many bytes, whatever the cache's dtype


def test_layers_that_stay_dense_are_priced_densely() -> None:
    known = EngineInfo(sparse=replace(SPARSE, layers=7)).architecture(CHECKPOINT)
    kv = KVPolicy(100, 16, 2.0)
    sparse, dense = (Price(replace(CHECKPOINT, layers=(replace(FULL, count=n),)), 1.0) for n in (7, 3))
    windows = Price(replace(CHECKPOINT, layers=(CHECKPOINT.layers[1],)), 1.0)
    parts = [sparse.decode(50, 400, kv), dense.decode(50, 400), windows.decode(50, 400)]
    parameters = 2 * CHECKPOINT.multiplied_parameters * 400
    found = Price(known, 1.0).decode(50, 400, kv)
    assert found.memory_bytes == sum(part.memory_bytes for part in parts)
    assert found.compute_flops == sum(part.compute_flops for part in parts) - 2 * parameters


def test_of_layers_of_several_shapes_those_that_read_least_count_as_sparse() -> None:
    small = replace(FULL, kv_heads=1)
    known = replace(CHECKPOINT, layers=(FULL, small)).with_sparse_layers(12)
    assert set(known.layers) == {small, replace(FULL, count=2), replace(FULL, count=8, dense=True)}
    assert known.kv_token_bytes == replace(CHECKPOINT, layers=(FULL, small)).kv_token_bytes


def test_every_device_of_tensor_parallelism_reads_a_kv_head() -> None:
    known = EngineInfo(tensor_parallel=8).architecture(CHECKPOINT)
    assert known.kv_token_bytes == 4 * CHECKPOINT.kv_token_bytes
    assert EngineInfo(tensor_parallel=2).architecture(CHECKPOINT) == CHECKPOINT


def test_a_kv_cache_that_has_no_price_is_named() -> None:
    with pytest.raises(ValueError, match="of nvfp4, and only float32, bfloat16"):
        EngineInfo(kv_cache_dtype="nvfp4").architecture(CHECKPOINT)


def test_engines_of_one_server_must_be_alike() -> None:
    one = metrics_of(FakeVllm("", kv_budget=300))
    assert read_info(one + one.replace('engine="0"', 'engine="1"')) == read_info(one)
    with pytest.raises(ValueError, match=r"its engines differ: .* 300 tokens .*; .* 400 tokens"):
        read_info(one + metrics_of(FakeVllm("", kv_budget=400)).replace('engine="0"', 'engine="1"'))


def test_a_plugin_of_another_version_is_not_guessed_at() -> None:
    said = metrics_of(FakeVllm("", kv_budget=300)).replace("summary_bytes", "bytes_of_summaries")
    with pytest.raises(ValueError, match="no label 'summary_bytes': its vLLM plugin is of another version"):
        read_info(said)


def test_contexts_up_to_min_context_are_dense() -> None:
    kv = EngineInfo(sparse=replace(SPARSE, min_context=1000)).kv_policy(CHECKPOINT)
    price = Price(CHECKPOINT, 1.0)
    assert price.decode(0, 1000, kv) == price.decode(0, 1000)
    after = price.decode(0, 2000, kv, start=1000)
    assert after == price.decode(0, 2000, replace(kv, min_context=0), start=1000)
    assert price.decode(0, 2000, kv) == price.decode(0, 1000) + after
    assert kv.dense_steps(100) == 900


async def checked(fake: FakeVllm, kv_budget: int | None) -> Pool:
    async with new_client() as client:
        upstream = Upstream(fake.url, client)
        pool = Pool([upstream], PAPER_B200, kv_budget=kv_budget)
        await pool.check(upstream)
    return pool


async def test_requests_are_priced_by_what_the_engine_says_and_a_log_line_tells_of_another_statement(
    fake: FakeVllm, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fake.kv_budget, fake.kv_cache_dtype = 512, "fp8_e4m3"
    _, served = (await checked(fake, None)).pick(MODEL)
    assert served.price is not None
    assert served.price.architecture.kv_bytes == 1
    assert served.kv == KVPolicy(512, 16, 54.72 / 16)
    assert "is up: attention to 512 tokens in 2 layers, KV cache of fp8_e4m3" in caplog.text
    assert "says that it attends to 512 tokens, and --kv-budget everything" in caplog.text
    caplog.clear()
    await checked(fake, 512)
    assert "says that" not in caplog.text


async def test_a_model_whose_kv_cache_has_no_price_is_served_without_budgets(fake: FakeVllm) -> None:
    fake.kv_cache_dtype = "nvfp4"
    _, served = (await checked(fake, None)).pick(MODEL)
    assert served.price is None
    assert served.problem is not None
    assert "nvfp4" in served.problem
