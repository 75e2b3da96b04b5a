"""Plans put to the test on a front-end with the stand-in for vLLM, which is right as often as it is told to be."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinetics_serve.commands.main import app
from kinetics_serve.cost import DENSE, load_architecture
from kinetics_serve.evaluation.tasks import Task
from kinetics_serve.evaluation.verification import Asked, Comparison, Verification, VerificationError, compare
from kinetics_serve.planner.calibrate import calibrate
from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.strategies.state import Status
from kinetics_serve.traces.intervals import Interval, wilson
from kinetics_serve.traces.traces import Metadata, Question, Traces, Trial
from tests.arms import PAPER_B200
from tests.fake_vllm import CONFIG, MODEL, PROMPT_TOKENS, FakeVllm
from tests.planner.test_choose import served

QUERIES = [f"Question {number}: what is 6 times 7?" for number in range(12)]
RIGHT = 0.75
MAX_TOKENS = 96
SAMPLING = {"temperature": 0.6, "template": "{query} Think."}


def says(right: float) -> Callable[[int], str]:
    """Of every 40 answers so many are right, in an order that looks like chance."""
    deck = ["Answer: 42\n"] * round(40 * right) + ["Answer: 7\n"] * round(40 * (1 - right))
    random.Random(1).shuffle(deck)
    drawn = cycle(deck)
    return lambda seed: next(drawn)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the questions, and a calibration of them for samples of 50 tokens on average.

    Only of votes that wait for all samples: the stand-in generates each at once, so there is nothing to cancel.
    """
    made, chance = tmp_path_factory.mktemp("verification"), random.Random(0)
    (made / "config.json").write_text(json.dumps(CONFIG))
    rows = [json.dumps({"question": query, "answer": "42"}) for query in QUERIES]
    (made / "sums.jsonl").write_text("\n".join(rows))

    def trial(number: int, tokens: int) -> Trial:
        right = chance.random() < RIGHT
        return Trial(number, "", tokens, Status.FINISHED, "42" if right else "7", right, 1.0, 1.0)

    def question(query: str) -> Question:
        tokens = chance.randint(30, 70)
        return Question(query, ("42",), PROMPT_TOKENS, tuple(trial(number, tokens) for number in range(8)))

    metadata = Metadata("sums", MODEL, MAX_TOKENS, DENSE, load_architecture(str(made)), SAMPLING)
    found = calibrate([Traces(metadata, tuple(map(question, QUERIES)))], PAPER_B200, repeats=2)
    votes = [each for each in found.served if each.strategy == "self_consistency" and each.arm.max_tokens >= 70]
    replace(found, served=tuple(votes)).save(made / "calibration.json")
    return made


def verified(folder: Path, url: str) -> tuple[int, str]:
    options = ("--calibration", folder / "calibration.json", "--accuracy", 0.8, "--verify", 24, "--url", url)
    arguments = [str(each) for each in ("plan", *options, "--prompt", PROMPT_TOKENS, "--task", folder / "sums.jsonl")]
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.exit_code, " ".join(result.output.split())


def test_a_plan_holds_on_a_model_that_is_as_it_was_recorded(folder: Path, url: str, vllm: FakeVllm) -> None:
    vllm.word, vllm.tokens = says(RIGHT), 50
    vllm.first_token_s = 0.1  # so that a question's samples run together, and share the prompt's reads
    status, output = verified(folder, url)
    assert status == 0, output
    assert "not within" not in output
    sent = vllm.sent("/v1/chat/completions")
    assert {(body["temperature"], body["max_tokens"]) for body in sent} == {(0.6, MAX_TOKENS)}
    assert {body["messages"][0]["content"] for body in sent} == {f"{query} Think." for query in QUERIES}


def test_a_plan_does_not_hold_on_a_model_that_has_become_worse(folder: Path, url: str, vllm: FakeVllm) -> None:
    vllm.word, vllm.tokens = says(0.1), 50
    status, output = verified(folder, url)
    assert status == 1
    assert "not within" in output
    assert "does not hold" in output


def test_a_plan_does_not_hold_where_samples_have_become_longer(folder: Path, url: str, vllm: FakeVllm) -> None:
    vllm.word, vllm.tokens = says(RIGHT), 90
    status, output = verified(folder, url)
    assert status == 1
    assert "does not hold" in output


def test_what_is_no_kinetics_serve_is_said(folder: Path, vllm: FakeVllm) -> None:
    status, output = verified(folder, vllm.url)
    assert status == 1
    assert f"{vllm.url}/v1/kinetics/plan answered 200: not as kinetics-serve does" in output
    assert "Traceback" not in output


def test_questions_that_are_in_no_known_place_have_to_be_named(folder: Path) -> None:
    options = ("--accuracy", "0.8", "--verify", "10", "--url", "http://127.0.0.1:9")
    result = CliRunner().invoke(app, ["plan", "--calibration", str(folder / "calibration.json"), *options])
    assert result.exit_code == 1
    assert "--task FILE.jsonl" in " ".join(result.output.split())


def test_a_plan_that_no_request_can_ask_for_is_not_put_to_the_test(folder: Path) -> None:
    calibration = Calibration.load(folder / "calibration.json")
    point = calibration.served[0]
    with pytest.raises(VerificationError, match="--model"):
        Verification(calibration, replace(point, arms=point.arms * 2), Task("sums", ()), "http://127.0.0.1:9")


def test_a_task_without_questions_is_said(folder: Path) -> None:
    calibration = Calibration.load(folder / "calibration.json")
    with pytest.raises(VerificationError, match="sums has no questions"):
        Verification(calibration, calibration.served[0], Task("sums", ()), "http://127.0.0.1:9")


def test_a_calibration_for_other_hardware_is_not_compared(folder: Path, url: str, vllm: FakeVllm) -> None:
    calibration = Calibration.load(folder / "calibration.json")
    other = replace(calibration, hardware=replace(calibration.hardware, flops=2 * calibration.hardware.flops))
    other.save(folder / "other.json")
    copy = folder / "other"
    copy.mkdir()
    (folder / "other.json").rename(copy / "calibration.json")
    (copy / "sums.jsonl").write_text((folder / "sums.jsonl").read_text())
    status, output = verified(copy, url)
    assert status == 1
    assert "FLOPs a byte" in output
    assert not vllm.sent("/v1/chat/completions")


def test_the_spend_that_is_expected_goes_with_the_prompts_that_were_asked() -> None:
    point = replace(served(0.5, 4), spent=Interval(5e8, 4e8, 6e8))
    asked = [Asked(str(number % 10), number % 2 == 0, 2e9, 1.1e9) for number in range(20)]
    compared = compare(point, asked)
    assert compared["eFLOPs"] == Comparison(Interval(1e9, 8e8, 1.2e9), Interval(1.1e9, 1.1e9, 1.1e9))
    assert compared["eFLOPs"].within
    assert compared["accuracy"].measured.mean == 0.5
    assert not Comparison(Interval(0.5, 0.4, 0.6), Interval(0.7, 0.61, 0.8)).within


def test_a_question_that_was_asked_more_often_does_not_count_more() -> None:
    point = replace(served(0.5, 4), spent=Interval(5e8, 4e8, 6e8))
    often, once = Asked("long", True, 8e9, 4e9), Asked("short", True, 2e9, 1e9)  # as planned: half of what is reserved
    spent = compare(point, [often, often, often, once])["eFLOPs"]
    assert spent.planned.mean == spent.measured.mean == 2.5e9


def test_an_accuracy_of_all_right_is_not_certain() -> None:
    assert wilson(1.0, 10).low == pytest.approx(0.722, abs=1e-3)
    assert wilson(1.0, 10).high == pytest.approx(1.0)
    assert wilson(0.5, 100).low == pytest.approx(0.404, abs=1e-3)
