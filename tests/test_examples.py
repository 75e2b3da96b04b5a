"""The package of examples, installed as its users would, and found by the command and by a server."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kinetics_serve.traces.recorder import Recorder
from tests.e2e.conftest import free_port
from tests.fake_vllm import MODEL, FakeVllm
from tests.ledger.server import FrontEnd, check_error, front_end
from tests.openapi_document import document_of
from tests.synthetic import synthetic

PLUGINS = Path(__file__).parents[1] / "examples" / "plugins"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In a folder of its own, which the processes that tests start look into."""
    source = tmp_path_factory.mktemp("source") / "plugins"
    shutil.copytree(PLUGINS, source)  # building leaves files behind
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(PLUGINS.parents[1])]))
        yield


@pytest.fixture(scope="module")
def server(stand_in: FakeVllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    folder = tmp_path_factory.mktemp("front-end")
    with front_end(stand_in, None, folder, folder / "log") as running:
        yield running


def ask(server: FrontEnd, **kinetics: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 40, "seed": 0}
    options = {"budget": {"samples": 8}, "max_samples": 8} | kinetics
    return httpx.post(f"{server.url}/v1/chat/completions", json=body | {"kinetics": options}, timeout=30)


def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "kinetics_serve", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "synthetic.jsonl"
    recorded = synthetic(questions=4, trials=8)
    recorder = Recorder(path, recorded.metadata)
    for question in recorded.questions:
        for trial in question.trials:
            recorder.add(question.query, question.choices, question.prompt_tokens, trial)
    recorder.close()
    return path


# ----- the strategy -----


def test_the_strategy_ends_when_k_samples_agree(server: FrontEnd, vllm: FakeVllm) -> None:
    vllm.word = lambda seed: "2 " if seed == 1 else "1 "  # which is sample 1's
    bill = ask(server, strategy="first_to_k", strategy_options={"k": 2}).json()["kinetics"]
    assert (bill["strategy"], bill["answer"], bill["stop_reason"]) == ("first_to_k", "1", "consensus")
    assert bill["samples_started"] == 3
    assert 0 < bill["spent_eflops"] <= bill["budget_eflops"]


def test_the_strategy_spends_what_there_is_where_none_agree(server: FrontEnd, vllm: FakeVllm) -> None:
    vllm.word = lambda seed: f"{seed} "
    bill = ask(server, strategy="first_to_k", max_samples=4).json()["kinetics"]
    assert (bill["samples_started"], bill["stop_reason"]) == (4, "max_samples")


def test_options_that_the_strategy_does_not_take_are_refused(server: FrontEnd) -> None:
    answer = ask(server, strategy="first_to_k", strategy_options={"k": 0})
    check_error(answer, 400, "invalid_request", "strategy_options, k: ", "greater than or equal to 1; given: 0")
    answer = ask(server, strategy="first_to_k", strategy_options={"votes": 2})
    check_error(answer, 400, "invalid_request", "strategy_options, votes: ")


def test_an_unknown_strategy_is_answered_with_those_that_there_are(server: FrontEnd) -> None:
    answer = ask(server, strategy="first_to_key")
    check_error(answer, 400, "invalid_request", "best_of_n, ", "did you mean 'first_to_k'?")


def test_replay_knows_the_strategy(traces: Path) -> None:
    shared = ("replay", traces, "--budget", "4samples", "--hardware", "b200")
    outcome = json.loads(command(*shared, "--strategy", "first_to_k", "--json").stdout)
    assert outcome["strategy"] == "first_to_k"
    assert 0 < outcome["eflops"]["mean"] <= outcome["budget"]
    unknown = command(*shared, "--strategy", "first_to_key")
    assert unknown.returncode == 1
    assert "did you mean 'first_to_k'?" in unknown.stderr


def test_a_calibration_tries_the_strategy(traces: Path, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    done = command("calibrate", traces, "--out", file, "--hardware", "b200", "--repeats", 1)
    assert done.returncode == 0, done.stderr
    tried = [point for point in json.loads(file.read_text())["served"] if point["strategy"] == "first_to_k"]
    assert {point["options"]["k"] for point in tried} == {2, 3}


# ----- the scorer -----


def test_the_scorer_decides(server: FrontEnd, vllm: FakeVllm) -> None:
    vllm.word = lambda seed: "because " if seed == 2 else "word "
    scorer = {"kind": "keywords", "words": ["Because", "therefore"]}
    answer = ask(server, strategy="best_of_n", max_samples=4, scorer=scorer, include_samples=True).json()
    assert answer["choices"][0]["message"]["content"].startswith("because")
    assert answer["kinetics"]["scorer"] == {"kind": "keywords", "spent_eflops": 0}
    assert [sample["score"] for sample in answer["kinetics"]["samples"]] == [0, 0, 0.5, 0]


def test_an_unknown_scorer_is_answered_with_those_that_there_are(server: FrontEnd) -> None:
    answer = ask(server, strategy="best_of_n", scorer={"kind": "keyword", "words": ["a"]})
    check_error(answer, 400, "invalid_request", "confidence", "reward_model", "did you mean 'keywords'?")


# ----- all of them -----


def test_a_part_that_cannot_be_loaded_is_named_with_its_package(
    traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "worm-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: worm-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[kinetics_serve.strategies]\nworm = no_such_module:SPEC\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(PLUGINS.parents[1])]))
    for words in (
        ("serve", "--upstream", "http://127.0.0.1:9", "--port", free_port(), "--hardware", "b200"),
        ("replay", traces, "--strategy", "worm", "--budget", "4samples", "--hardware", "b200"),
    ):
        done = command(*words)
        assert done.returncode == 1
        said = done.stderr.splitlines()[-1]
        assert said.startswith("error: the strategy 'worm' of worm-package can't be loaded: ModuleNotFoundError")


def test_the_openapi_document_has_the_parts_and_their_options(server: FrontEnd) -> None:
    schemas = document_of(server.url)["components"]["schemas"]
    fields = schemas["KineticsOptions"]["properties"]
    assert "first_to_k" in fields["strategy"]["enum"]
    assert "first_to_k: k (3), samples that have to agree" in fields["strategy_options"]["description"]
    assert "words" in schemas["KeywordsOptions"]["properties"]
