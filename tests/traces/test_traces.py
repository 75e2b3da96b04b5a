import gzip
import json
from pathlib import Path

import pytest

from kinetics_serve.cost import DENSE, KVPolicy
from kinetics_serve.strategies.state import Status
from kinetics_serve.traces.recorder import Recorder
from kinetics_serve.traces.traces import Metadata, Traces, TracesError, read
from tests.synthetic import synthetic


def record(traces: Traces, path: Path, most: int | None = None) -> None:
    recorder = Recorder(path, traces.metadata)
    for question in traces.questions:
        for trial in question.trials[:most]:
            if (question.query, trial.number) not in recorder.done:
                recorder.add(question.query, question.choices, question.prompt_tokens, trial)
    recorder.close()


def test_traces_come_back_as_they_were_written(tmp_path: Path) -> None:
    traces = synthetic(questions=3, trials=4, kv=KVPolicy(64, 16, 2.0))
    record(traces, tmp_path / "traces.jsonl")
    assert read(tmp_path / "traces.jsonl") == traces


def test_an_interrupted_recording_goes_on_without_repeating_a_trial(tmp_path: Path) -> None:
    path, traces = tmp_path / "traces.jsonl", synthetic(questions=3, trials=4)
    record(traces, path, most=2)
    path.write_bytes(path.read_bytes()[:-20])  # killed in the middle of a line
    record(traces, path)
    assert read(path) == traces
    assert len(path.read_text().splitlines()) == 1 + 3 * 4


def test_a_file_of_other_metadata_is_not_added_to(tmp_path: Path) -> None:
    path, traces = tmp_path / "traces.jsonl", synthetic(questions=1, trials=1)
    record(traces, path)
    with pytest.raises(TracesError, match="max_tokens 400 instead of 200"):
        Recorder(path, Metadata("synthetic", "tiny", 200, DENSE, traces.metadata.architecture))


def test_two_runs_do_not_record_into_one_file(tmp_path: Path) -> None:
    metadata = synthetic(questions=1, trials=1).metadata
    first = Recorder(tmp_path / "traces.jsonl", metadata)
    with pytest.raises(TracesError, match="another run"):
        Recorder(tmp_path / "traces.jsonl", metadata)
    first.close()
    Recorder(tmp_path / "traces.jsonl", metadata).close()


def write_paper(path: Path, metadata: dict[str, object]) -> None:
    """The layout of the paper's published traces: no token counts, no labels."""
    rows = [
        metadata,
        {"query": "1+1?", "choices": ["2"], "prediction": ["So \\boxed{2}."], "score": 100.0},
        {"query": "1+1?", "choices": ["2"], "prediction": ["So \\boxed{3}."], "score": 0.0},
        {"query": "1+1?", "choices": ["2"], "prediction": ["It is 2.0"], "score": 100.0},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_papers_traces_load_with_a_tokenizer_to_count_their_tokens(tmp_path: Path) -> None:
    path = tmp_path / "aime24.jsonl"
    write_paper(path, {"task": "aime24", "pass@1": 66.7, "total_example": 3})
    (question,) = read(path, count_tokens=len).questions
    assert [trial.answer for trial in question.trials] == ["2", "3", "2"]
    assert [trial.correct for trial in question.trials] == [True, False, True]
    assert [trial.tokens for trial in question.trials] == [13, 13, 9]
    assert question.trials[0].status is Status.FINISHED
    with pytest.raises(TracesError, match="--tokenizer"):
        read(path)


@pytest.mark.parametrize(
    ("metadata", "kv"),
    [
        ({}, DENSE),
        ({"attn_local": 64, "attn_topk": 448}, KVPolicy(512)),
        ({"attn_local": 0, "attn_block_topk": 32, "attn_block_size": 16}, KVPolicy(512, 16, 1)),
    ],
)
def test_the_papers_sparse_settings_are_kv_policies(tmp_path: Path, metadata: dict[str, object], kv: KVPolicy) -> None:
    write_paper(tmp_path / "traces.jsonl", {"task": "aime24", **metadata})
    assert read(tmp_path / "traces.jsonl", len).metadata.kv == kv


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is empty"), ("[1]\n", "line 1 is not a JSON object"), ('{"task": "x"}\n', "no trials"), ("{\n", "not JSON")],
)
def test_what_is_not_traces_is_refused_by_name_and_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text(content)
    with pytest.raises(TracesError, match=message):
        read(path)


def edited(path: Path, line: int, **fields: object) -> None:
    """A recording of two questions whose line number `line` has these fields, and lacks those that are None."""
    record(synthetic(questions=2, trials=2), path)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    lines[line - 1] = {name: value for name, value in (lines[line - 1] | fields).items() if value is not None}
    path.write_text("\n".join(map(json.dumps, lines)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"status": None}, "status: Field required"),
        ({"status": "running"}, "status: Input should be 'finished' or 'truncated'"),
        ({"score": "right"}, "score: "),
        ({"score": float("nan")}, "score: "),
        ({"tokens": -5}, "tokens: "),
        ({"tokens": 1.5}, "tokens: "),
        ({"prompt_tokens": 0}, "prompt_tokens: "),
        ({"prediction": "text"}, "prediction: "),
        ({"prediction": []}, "prediction: "),
        ({"query": ["a"]}, "query: "),
        ({"label": ["a"]}, "label: "),
        ({"confidence": float("nan")}, "confidence: .*expected a number from -1e.100 to 1e.100, given: nan"),
        ({"confidence": -1e308}, "confidence: .*given: -1e.308"),
        ({"lows": [[1]]}, "lows"),
    ],
)
def test_a_trial_that_no_replay_could_use_is_refused_by_line_and_field(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    edited(tmp_path / "traces.jsonl", 3, **fields)
    with pytest.raises(TracesError, match=f"line 3 is not a trial: {message}"):
        read(tmp_path / "traces.jsonl")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"traces": 99}, "traces: Input should be 1"),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"max_tokens": "many"}, "max_tokens: "),
        ({"engine": []}, "engine: "),
        ({"engine": {"cache_block": "x"}}, "engine: .*cache_block"),
        ({"kv": {"budget": -1}}, "at least 1 token"),
        ({"architecture": {"name": "x"}}, "layers"),
    ],
)
def test_metadata_that_no_replay_could_use_is_refused_by_field(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    edited(tmp_path / "traces.jsonl", 1, **fields)
    with pytest.raises(TracesError, match=f"first line is not the metadata of traces: .*{message}"):
        read(tmp_path / "traces.jsonl")


def test_a_trial_that_stands_there_twice_does_not_count_as_two(tmp_path: Path) -> None:
    edited(tmp_path / "traces.jsonl", 3, trial=0)
    with pytest.raises(TracesError, match="line 3 has trial 0 of 'question 0' once more"):
        read(tmp_path / "traces.jsonl")


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    path, traces = tmp_path / "traces.jsonl", synthetic(questions=2, trials=2)
    record(traces, path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert read(path) == traces
    path.write_bytes(path.read_bytes() + b"{}")
    with pytest.raises(TracesError, match="line 11 is not a trial"):
        read(path)


def test_what_is_no_text_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(TracesError, match=r"traces\.jsonl\.gz is not UTF-8 text"):
        read(path)
