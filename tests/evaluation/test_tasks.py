import base64
import json
import os
import pickle
import zlib
from pathlib import Path

import pytest

from kinetics_serve.evaluation.tasks import TaskError, _private_tests, _program, load_task


def test_the_packaged_tasks_load_with_their_answers() -> None:
    tables = load_task("times-tables")
    assert len(tables.problems) == 64
    assert tables.problems[0].choices == ("4",)
    gsm8k = load_task("gsm8k-mini", limit=3)
    assert [problem.choices for problem in gsm8k.problems] == [("18",), ("3",), ("70000",)]
    assert "\\boxed{}" in gsm8k.prompt(gsm8k.problems[0])


def test_a_file_gives_questions_by_any_of_the_usual_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"problem": "1+1?", "answer": "so #### 2"}\n{"query": "2+2?", "choices": ["4", "four"]}\n')
    task = load_task(str(path))
    assert task.name == "mine"
    assert [problem.choices for problem in task.problems] == [("2",), ("4", "four")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "1+1?"}\n', "every row needs one of"),
        (b'{"query": "1+1?", "choices": []}\n', "every row needs one of"),
        (b"nonsense\n", "not JSONL"),
        (b'["query", "answer"]\n', "every line has to be an object"),
        (b"5\n", "every line has to be an object"),
        (b"\n", "has no questions"),
        (b"\x1f\x8b123", "is not UTF-8 text"),
        (b'{"query": "a", "answer": "7"}\n{"query": "a", "answer": "8"}\n', "two answers to one question: 'a'"),
    ],
)
def test_a_file_that_is_no_task_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=message):
        load_task(str(path))


def test_a_question_that_stands_there_twice_is_asked_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"query": "a", "answer": "7"}\n{"query": "b", "answer": "8"}\n' * 2)
    assert [problem.query for problem in load_task(str(path), limit=3).problems] == ["a", "b"]


def test_a_text_may_hold_any_line_end_but_its_own_and_the_file_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('\ufeff{"query": "a\u2028b\x85c", "answer": 7}\n', encoding="utf-8")
    (problem,) = load_task(str(path)).problems
    assert (problem.query, problem.choices) == ("a\u2028b\x85c", ("7",))


def test_of_choices_and_an_answer_only_the_answer_is_right(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "2+2?", "choices": ["3", "4"], "answer": "4"}\n')
    assert load_task(str(path)).problems[0].choices == ("4",)


def test_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(TaskError, match=r"gsm8k-mini.*math500.*livecodebench"):
        load_task("riddles")


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TaskError, match=r"can't be loaded from the Hugging Face hub|extra 'planning'"):
        load_task("aime24")
    with pytest.raises(TaskError, match="can't be loaded from the Hugging Face hub"):
        load_task("livecodebench")


def pack(content: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(content))).decode()


def test_a_livecodebench_row_is_a_problem_with_its_public_and_hidden_tests() -> None:
    row = {
        "question_content": "Add.",
        "starter_code": "class Solution:",
        "public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
        "private_test_cases": pack(json.dumps([{"input": "4\n5", "output": "9", "testtype": "functional"}])),
        "metadata": json.dumps({"func_name": "add"}),
    }
    problem = _program(row)
    assert [(test.given, test.expected, test.function) for test in problem.tests] == [
        ("1\n2", "3", "add"),
        ("4\n5", "9", "add"),
    ]
    assert "class Solution:" in problem.query


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def test_hidden_tests_that_are_not_text_are_not_unpickled() -> None:
    with pytest.raises(pickle.UnpicklingError, match="a text was expected"):
        _private_tests(pack(Hostile()))
