import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinetics_serve.commands.main import app
from kinetics_serve.traces.recorder import Recorder
from tests.fake_vllm import FakeVllm
from tests.synthetic import synthetic

MODELS = Path(__file__).parent.parent / "data" / "models"
MINI = ("--task", "gsm8k-mini", "--upstream", "http://a", "--hardware", "b200", "--out", "/no")
runner = CliRunner()


@pytest.fixture(scope="module")
def traces_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "synthetic.jsonl"
    traces = synthetic(questions=8, trials=8)
    recorder = Recorder(path, traces.metadata)
    for question in traces.questions:
        for trial in question.trials:
            recorder.add(question.query, question.choices, question.prompt_tokens, trial)
    recorder.close()
    return path


def run(*arguments: object) -> str:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_replay_says_accuracy_and_spend_with_intervals(traces_file: Path) -> None:
    arguments = ("replay", traces_file, "--budget", "4samples", "--strategy", "majority_vote", "--hardware", "b200")
    outcome = json.loads(run(*arguments, "--json"))
    assert 0 <= outcome["accuracy"]["low"] <= outcome["accuracy"]["mean"] <= outcome["accuracy"]["high"] <= 1
    assert outcome["eflops"]["mean"] <= outcome["budget"]
    assert f"accuracy {outcome['accuracy']['mean']:.3f}" in run(*arguments)


def test_traces_become_a_calibration_figures_and_plans(traces_file: Path, tmp_path: Path) -> None:
    calibration = tmp_path / "calibration.json"
    output = run("calibrate", traces_file, "--out", calibration, "--hardware", "b200", "--repeats", 1)
    assert "for twice the eFLOPs, N × length grows by" in output
    assert "frontier.csv" in run("frontier", calibration, "--out", tmp_path / "figures")
    plan = json.loads(run("plan", "--calibration", calibration, "--budget", "3e12"))
    assert plan["basis"] == "calibration"
    assert plan["budget_eflops"] <= 3e12
    half, now = plan["half_budget_accuracy"], plan["expected_accuracy"]
    assert half is None or half["mean"] <= now["high"]


@pytest.fixture(scope="module")
def calibration_file(traces_file: Path) -> Path:
    path = traces_file.with_name("calibration.json")
    run("calibrate", traces_file, "--out", path, "--hardware", "b200", "--repeats", 1)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "other"), "nothing that was calibrated fits this model, .* the calibration is of tiny, with samp"),
        (("--max-tokens", 1), "with samples of [0-9]+ tokens or more"),
        (("--prompt", 8190), "nothing that was calibrated fits"),  # of a context of 8,192
    ],
)
def test_a_plan_that_nothing_calibrated_fits_is_not_a_matter_of_the_budget(
    calibration_file: Path, options: tuple[object, ...], message: str
) -> None:
    arguments = ["plan", "--calibration", calibration_file, "--budget", "1e20", *options]
    result = runner.invoke(app, list(map(str, arguments)))
    assert result.exit_code == 1
    assert re.search(message, " ".join(result.output.split()))


def test_a_budget_that_buys_nothing_calibrated_is_told_the_least_that_does(calibration_file: Path) -> None:
    arguments = ("plan", "--calibration", str(calibration_file), "--budget")
    result = runner.invoke(app, [*arguments, "1"])
    assert result.exit_code == 1
    least = int(result.output.split("at least")[1])
    assert json.loads(run(*arguments, least))["budget_eflops"] == least
    assert runner.invoke(app, [*arguments, str(least - 1)]).exit_code == 1


def test_a_plan_without_a_calibration_keeps_to_the_models_context() -> None:
    arguments = ("plan", "--model", MODELS / "SmolLM3-3B.json", "--budget", "4samples", "--hardware", "b200")
    assert json.loads(run(*arguments, "--prompt", 65_344))["max_tokens"] == 192
    for more in (("--prompt", "65536"), ("--prompt", "65344", "--max-tokens", "193")):
        result = runner.invoke(app, [*map(str, arguments), *more])
        assert result.exit_code == 1
        assert "has a context of 65536 tokens: too little" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--strategy", "guess", "--budget", "1e12"), "no strategy is called 'guess'"),
        (("--budget", "lots"), "--budget takes eFLOPs"),
        (("--budget", "1"), "does not cover one sample"),
        (("--budget", "4samples", "--strategy", "cascade"), "cascade runs on several models or KV budgets"),
        (("--budget", "1e12", "--max-tokens", "4000"), "recorded with at most 400 tokens"),
    ],
)
def test_what_replay_cannot_do_is_said(traces_file: Path, options: tuple[str, ...], message: str) -> None:
    result = runner.invoke(app, ["replay", str(traces_file), "--hardware", "b200", *options])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize("options", [("--seed", "-1"), ("--stop-confidence", "0")])
def test_what_no_replay_can_be_run_with_is_no_option(traces_file: Path, options: tuple[str, ...]) -> None:
    result = runner.invoke(app, ["replay", str(traces_file), "--budget", "4samples", *options])
    assert result.exit_code == 2
    assert f"Invalid value for '{options[0]}'" in result.output


@pytest.mark.parametrize("out", ["nowhere/calibration.json", "."])
def test_a_calibration_that_could_not_be_written_is_not_begun(
    traces_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    def begun(*_: object) -> None:
        raise AssertionError("the traces were replayed")

    monkeypatch.setattr("kinetics_serve.planner.calibrate.calibrate", begun)
    result = runner.invoke(app, ["calibrate", str(traces_file), "--out", str(tmp_path / out)])
    assert result.exit_code == 1
    assert "can't be written" in result.output
    assert not list(tmp_path.iterdir())


def test_what_replay_says_of_options_names_the_option(traces_file: Path) -> None:
    options = ("--budget", "4samples", "--strategy", "majority_vote", "--strategy-options", '{"nope": 1}')
    result = runner.invoke(app, ["replay", str(traces_file), "--hardware", "b200", *options])
    assert result.exit_code == 1
    assert "--strategy-options of majority_vote: nope: Extra inputs are not permitted" in result.output
    assert "pydantic" not in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("serve", "--upstream", "http://a", "--hardware", "b200", "--calibration", "/"), "the calibration / can't"),
        (("serve", "--upstream", "http://a", "--hardware", "b200", "--calibration", "/no"), "the calibration /no can"),
        (("plan", "--calibration", "/", "--budget", "1e12"), "the calibration / can't be read: Is a directory"),
        (("serve", "--upstream", "http://a", "--hardware", "b200", "--host", "192.0.2.1"), "--host is an address of"),
        (("eval", "--task", "gsm8k-mini", "--upstream", "gpu-1", "--out", "/no"), "--upstream: expected a URL"),
        (("eval", "--task", "gsm8k-mini", "--upstream", "http://me:pw@a", "--out", "/no"), "is stated with --api-key;"),
        (("eval", *MINI, "--template", r"{query} \boxed{}"), "--template must have {query} where .* double all other"),
        (("eval", *MINI, "--template", "{{query}}"), "--template must have {query}"),
        (("plan", "--calibration", "/", "--verify", "10", "--url", "gpu-1"), "--url: expected a URL"),
        (("eval", "--task", "times-tables", "--upstream", "http://a", "--out", "/proc/no"), "--out /proc/no can't be"),
        (("tenants", "set", "a", "--ledger", "/no", "--model", "all", "--model", "b"), '"all" alone'),
        (("usage", "--ledger", "/no", "--since", "2026-02-02", "--until", "2026-02-01"), "is after --until 2026-02-01"),
    ],
)
def test_what_is_wrong_is_named_with_its_option(arguments: tuple[str, ...], words: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert re.search(words, " ".join(result.output.split()))


def test_eval_shows_the_server_its_key_and_says_where_it_wants_one(
    tmp_path: Path, stand_in: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    command = ["eval", "--task", str(tmp_path / "q.jsonl"), "--upstream", stand_in.url, "--out", str(tmp_path / "out")]
    command += ["--hardware", "b200", "--trials", "1", "--max-tokens", "8"]
    monkeypatch.setattr(stand_in, "api_key", "secret")
    assert "wants a key: state it with --api-key" in " ".join(runner.invoke(app, command).output.split())
    assert "does not take that key" in runner.invoke(app, [*command, "--api-key", "other"]).output
    result = runner.invoke(app, command, env={"OPENAI_API_KEY": "secret"})
    assert result.exit_code == 0, result.output


def test_the_commands_load_neither_torch_nor_vllm_nor_figures() -> None:
    loaded = "[name for name in ('torch', 'vllm', 'matplotlib') if name in sys.modules]"
    code = f"import sys, kinetics_serve.commands.main; print({loaded})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
