import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinetics_serve.commands.main import app
from kinetics_serve.cost import DENSE, ZERO, KVPolicy, Price, hardware, load_architecture

MODELS = Path(__file__).parent.parent / "data" / "models"
runner = CliRunner(env={"COLUMNS": "240"})


def run(*arguments: object) -> str:
    result = runner.invoke(app, ["cost", "--hardware", "b200", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_table_tells_parameters_layers_bytes_and_a_token_at_each_context() -> None:
    output = run(MODELS / "Qwen3.5-27B.json")
    for part in ("26.896e9", "25.625e9", "48 × state: 3,207,168 bytes", "16 × full: 24 heads, 4 KV of 256", "65,536"):
        assert part in output
    for context in ("1,000", "16,000", "128,000"):
        assert f"eFLOPs a token at {context}, dense" in output
        assert f"eFLOPs a token at {context}, KV budget 1,024" in output


def test_models_stand_side_by_side_and_those_that_are_refused_are_named() -> None:
    models = [MODELS / f"{name}.json" for name in ("Qwen3-8B", "gpt-oss-20b", "Kimi-K3")]
    result = runner.invoke(app, ["cost", "--hardware", "h100", "--compare", *map(str, models)])
    assert result.exit_code == 1
    assert "8.191e9" in result.output
    assert "20.915e9" in result.output
    assert "kimi_k3" in result.output


def test_several_models_need_compare_and_none_is_none() -> None:
    model = str(MODELS / "Qwen3-8B.json")
    assert runner.invoke(app, ["cost", model, model]).exit_code == 1
    assert runner.invoke(app, ["cost"]).exit_code == 1


def test_json_holds_the_exact_numbers() -> None:
    model = MODELS / "Qwen3-8B.json"
    report = json.loads(run(model, "--json", "--prompt", 100, "--generated", 50, "--context", 1000, "--kv-budget", 128))
    price = Price.on(load_architecture(model), hardware.profile("b200"))
    kv = KVPolicy(128, 16, 2)
    assert report["arithmetic_intensity"] == price.intensity
    for name, cost in (
        ("prefill", price.prefill(100)),
        ("decode", price.decode(100, 50, kv)),
        ("sample", price.sample(100, 50, kv)),
    ):
        assert report[name]["compute_flops"] == cost.compute_flops
        assert report[name]["memory_bytes"] == cost.memory_bytes
        assert report[name]["eflops"] == price.eflops(cost)
    assert report["token"]["1000"]["compute_flops"] == price.decode(999, 1, kv).compute_flops


@pytest.mark.parametrize("kv", [DENSE, KVPolicy(120, 16, 2)])
def test_samples_of_one_prompt_prefill_it_once_and_read_it_once_a_step(kv: KVPolicy) -> None:
    price = Price.on(load_architecture(MODELS / "Qwen3-8B.json"), hardware.profile("b200"))
    reads = price.prompt_reads(100, 50, kv)
    own = price.decode(100, 50, kv) - reads
    expected = price.prefill(100) + reads + sum([own] * 4, ZERO)
    assert price.together(100, 50, 4, kv) == expected
