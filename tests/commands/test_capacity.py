import json
from pathlib import Path

from typer.testing import CliRunner

from kinetics_serve.commands.main import app

MODELS = Path(__file__).parent.parent / "data" / "models"
runner = CliRunner(env={"COLUMNS": "100"})
LOAD = ["--memory", "80", "--rate", "10", "--hardware", "h100"]


def test_a_table_says_how_many_engines_dense_and_with_a_kv_budget() -> None:
    arguments = ["capacity", str(MODELS / "Qwen3-8B.json"), *LOAD, "--price-per-gpu-hour", "2.5", "--generated", "8000"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for part in ("engines", "dense", "KV budget 1,024", "$ a request", "not measured", "1 × h100"):
        assert part in result.output
    assert max(map(len, result.output.splitlines())) <= 100
    exact = json.loads(runner.invoke(app, [*arguments, "--json"]).output)
    assert exact["KV budget 1,024"]["engines"] < exact["dense"]["engines"]


def test_a_model_that_does_not_fit_is_refused_in_a_line() -> None:
    result = runner.invoke(app, ["capacity", str(MODELS / "Qwen3-8B.json"), *LOAD[2:], "--memory", "16"])
    assert result.exit_code == 1
    assert "take more devices or memory" in " ".join(result.output.split())
