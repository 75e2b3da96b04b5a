import csv
from dataclasses import replace
from math import isclose
from pathlib import Path

import pytest

from kinetics_serve.cost import Architecture, Cost, KVPolicy, Price, StateLayers, paper, read_config

from . import configs

REFERENCE = Path(__file__).parent.parent / "data" / "kinetics_reference_costs.csv"
ROWS = list(csv.DictReader(REFERENCE.open(encoding="utf-8")))
MODELS = {name: read_config(config, name, configs.PAPER_PARAMETERS[name]) for name, config in configs.QWEN3.items()}


def published_cost(row: dict[str, str]) -> Cost:
    def number(key: str) -> int:
        return int(row[key])

    sample = (MODELS[row["model"]], number("context_length"), number("generation_length"))
    trials = number("num_trials")
    if row["method"] == "dense":
        return paper.dense(*sample, trials)
    if row["method"] == "topk":
        return paper.top_k(*sample, number("budget_or_local"), trials)
    local, page_size, pages = (number(key) for key in ("budget_or_local", "block_size", "block_topk"))
    return paper.block_top_k(*sample, local, page_size, pages, trials)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']}-{row['method']}")
def test_every_reference_cost_is_reproduced(row: dict[str, str]) -> None:
    cost = published_cost(row)
    assert isclose(cost.compute_flops * 1e-12, float(row["compute_tflops"]), rel_tol=1e-9)
    assert isclose(
        Cost(0, cost.memory_bytes).eflops(paper.INTENSITY) * 1e-12,
        float(row["memory_eflops_t"]),
        rel_tol=1e-9,
    )


def test_the_reference_holds_every_model_and_method() -> None:
    assert len(ROWS) == 105
    assert {row["model"] for row in ROWS} == set(MODELS)
    assert {row["method"] for row in ROWS} == {"dense", "topk", "block_topk"}


@pytest.mark.parametrize("name", MODELS)
def test_our_dense_decode_is_the_papers_but_for_the_half_token_of_its_integral(name: str) -> None:
    architecture, prompt, generated = MODELS[name], 2000, 5000
    ours = Price(architecture, paper.INTENSITY).decode(prompt, generated)
    (group,) = architecture.layers
    extra = group.read_bytes(kv_bytes=2) * generated // 2
    assert ours.memory_bytes - paper.dense(architecture, prompt, generated).memory_bytes == extra


def test_our_top_k_is_the_papers_where_the_prompt_exceeds_the_budget() -> None:
    architecture = replace(MODELS["Qwen3-8B"], looked_up_embedding=0)
    ours = Price(architecture, 1.0).decode(4000, 1000, KVPolicy(budget=512))
    assert ours == paper.top_k(architecture, 4000, 1000, 512)


def test_the_papers_top_k_overcharges_a_budget_above_the_prompt() -> None:
    architecture = MODELS["Qwen3-8B"]
    dense = paper.dense(architecture, 100, 2000)
    assert paper.top_k(architecture, 100, 2000, 2100).memory_bytes > dense.memory_bytes
    ours = Price(architecture, 1.0)
    assert ours.decode(100, 2000, KVPolicy(budget=2100)) == ours.decode(100, 2000)


def test_our_mean_key_pages_come_near_the_papers_block_top_k() -> None:
    architecture = replace(MODELS["Qwen3-8B"], looked_up_embedding=0)
    theirs = paper.block_top_k(architecture, 4000, 8000, local_tokens=64, page_size=16, pages=28)
    ours = Price(architecture, 1.0).decode(4000, 8000, KVPolicy(512, 16, 1))
    assert ours.memory_bytes == pytest.approx(theirs.memory_bytes, rel=2e-3)
    assert ours.compute_flops == pytest.approx(theirs.compute_flops, rel=2e-3)


def test_coverage_is_the_unbiased_pass_at_k() -> None:
    scores = [1, 0, 0, 1]
    assert paper.coverage(scores, 1) == 0.5
    assert paper.coverage(scores, 2) == 1 - 1 / 6
    assert paper.coverage(scores, 3) == 1
    assert paper.coverage([0, 0], 2) == 0


@pytest.mark.parametrize("k", [0, 5, -1])
def test_coverage_of_more_than_the_samples_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="1 <= k <= 4"):
        paper.coverage([1, 0, 0, 1], k)


def test_the_paper_multiplies_an_embedding_that_is_looked_up_and_we_do_not() -> None:
    architecture = MODELS["Qwen3-8B"]
    theirs, ours = paper.dense(architecture, 2000, 1), Price(architecture, 1.0).decode(1999, 1)
    embedding = 2 * 151936 * 4096
    assert architecture.looked_up_embedding * 2 == embedding
    assert theirs.compute_flops - ours.compute_flops == pytest.approx(embedding, rel=1e-3)


def test_the_paper_prices_no_other_kinds_of_layers() -> None:
    with pytest.raises(ValueError, match="attention layers only"):
        paper.dense(Architecture("model", 10, 10, (StateLayers(1, 4, 2, 0, 20),)), 1, 1)
