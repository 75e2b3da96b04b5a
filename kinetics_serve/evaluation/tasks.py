"""Questions to try a model on, from a file, from this package or from the Hugging Face hub."""

import base64
import io
import json
import pickle
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from kinetics_serve.answers.extract import extractor
from kinetics_serve.answers.programs import code
from kinetics_serve.answers.spec import Extractor

Row = Mapping[str, Any]
Grader = Literal["math", "tests"]

MATH_TEMPLATE = "{query}\n\nThink step by step, and end with the final answer in \\boxed{{}}."
CODE_TEMPLATE = (
    "{query}\n\nWrite a Python program that solves this. It reads its input from stdin and writes its answer to "
    "stdout, unless starter code is given. Answer with one ```python block."
)

QUERY_FIELDS = ("query", "question", "problem", "prompt")
ANSWER_FIELDS = ("answer", "choices", "solution", "target")
"""The first that a row has. Where there is an answer too, choices are what it is chosen from."""


class TaskError(ValueError):
    """A task that can't be loaded; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ProgramTest:
    """What a program must answer."""

    given: str
    expected: str
    function: str = ""
    """What to call with the JSON values on the lines of `given`; "" for stdin."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, the answers that are right, or the tests that a program must pass."""

    query: str
    choices: tuple[str, ...] = ()
    tests: tuple[ProgramTest, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """Questions, how to ask them, and how to take and grade their answers."""

    name: str
    problems: tuple[Problem, ...]
    template: str = "{query}"
    """The prompt, with {query} in it."""
    extractor: str = "auto"
    """This and its pattern are as in a request's `kinetics.answer`."""
    pattern: str | None = None
    grader: Grader = "math"

    def prompt(self, problem: Problem) -> str:
        return self.template.format(query=problem.query)

    def extract(self) -> Extractor:
        return code if self.grader == "tests" else extractor(self.extractor, self.pattern)


@dataclass(frozen=True, slots=True)
class HubData:
    """Where a task lies on the Hugging Face hub."""

    repository: str
    split: str
    configuration: str | None = None


HUB = {
    "gsm8k": HubData("openai/gsm8k", "test", "main"),
    "aime24": HubData("HuggingFaceH4/aime_2024", "train"),
    "aime25": HubData("math-ai/aime25", "test"),
    "math500": HubData("HuggingFaceH4/MATH-500", "test"),
}
LIVECODEBENCH = "livecodebench/code_generation_lite"
LIVECODEBENCH_FILES = ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl")
"""Release v5, the paper's."""

PACKAGED = {
    "gsm8k-mini": Task("gsm8k-mini", (), MATH_TEMPLATE),
    "times-tables": Task("times-tables", (), extractor="number"),
}


def load_task(name: str, limit: int | None = None) -> Task:
    """A task by its name, or the questions of a JSONL file; the first `limit` of them. Raises TaskError."""
    if name in PACKAGED:
        text = resources.files("kinetics_serve.evaluation").joinpath("data", f"{name}.jsonl").read_text("utf-8")
        known = PACKAGED[name]
        return _task(name, _parse(text, name), limit, known.template, known.extractor)
    if name.endswith(".jsonl"):
        try:
            return _task(Path(name).stem, _parse(Path(name).read_text("utf-8-sig"), name), limit, "{query}")
        except OSError as error:
            raise TaskError(f"no task file {name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise TaskError(f"{name} is not UTF-8 text: unpack it, or convert it") from None
    if name == "livecodebench":
        problems = [_program(row) for row in _livecodebench()]
        return Task(name, tuple(problems[:limit]), CODE_TEMPLATE, grader="tests")
    if name in HUB:
        return _task(name, _from_hub(HUB[name]), limit, MATH_TEMPLATE)
    known_names = ", ".join([*PACKAGED, *HUB, "livecodebench"])
    raise TaskError(f"unknown task {name!r}: expected one of {known_names}, or a file FILE.jsonl")


def _task(name: str, rows: Iterable[Row], limit: int | None, template: str, how: str = "auto") -> Task:
    problems: dict[str, Problem] = {}
    for row in rows:
        problem = _problem(row, name)
        if problems.setdefault(problem.query, problem) != problem:
            raise TaskError(f"{name} has two answers to one question: {problem.query!r:.100}")
    if not problems:
        raise TaskError(f"{name} has no questions")
    return Task(name, tuple(problems.values())[:limit], template, how)


def _problem(row: Row, where: str) -> Problem:
    query = next((row[field] for field in QUERY_FIELDS if field in row), None)
    answer = next((row[field] for field in ANSWER_FIELDS if field in row), None)
    if not isinstance(query, str) or answer in (None, []):
        raise TaskError(
            f"{where}: every row needs one of {', '.join(QUERY_FIELDS)} and one of {', '.join(ANSWER_FIELDS)}; "
            f"this one has {', '.join(row)}"
        )
    choices = answer if isinstance(answer, list) else [answer]
    return Problem(query, tuple(str(choice).rpartition("####")[2].strip() for choice in choices))


def _parse(text: str, where: str) -> list[Row]:
    try:
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]  # a text may have other line ends in it
    except ValueError as error:
        raise TaskError(f"{where} is not JSONL: {error}") from None
    if not all(isinstance(row, dict) for row in rows):
        raise TaskError(f"{where} is not JSONL: every line has to be an object")
    return rows


def _from_hub(data: HubData) -> list[Row]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise TaskError("tasks of the Hugging Face hub need kinetics-serve's extra 'planning'") from None
    try:
        return list(load_dataset(data.repository, data.configuration, split=data.split))
    except Exception as error:  # the library raises a dozen kinds for a hub that can't be reached
        raise _no_hub(data.repository, error) from None


def _livecodebench() -> list[Row]:
    from huggingface_hub import hf_hub_download

    rows: list[Row] = []
    for name in LIVECODEBENCH_FILES:
        try:
            path = hf_hub_download(LIVECODEBENCH, name, repo_type="dataset")
        except Exception as error:
            raise _no_hub(LIVECODEBENCH, error) from None
        rows += _parse(Path(path).read_text("utf-8"), name)
    return rows


def _no_hub(repository: str, error: Exception) -> TaskError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return TaskError(
        f"the data set {repository} can't be loaded from the Hugging Face hub ({reason}): check the connection, or "
        "give the questions as a file FILE.jsonl"
    )


def _program(row: Row) -> Problem:
    query = row["question_content"]
    if row.get("starter_code"):
        query += f"\n\nStarter code:\n```python\n{row['starter_code']}\n```"
    tests = json.loads(row["public_test_cases"]) + _private_tests(row["private_test_cases"])
    function = (json.loads(row["metadata"] or "{}")).get("func_name") or ""
    return Problem(query, (), tuple(ProgramTest(test["input"], test["output"], function) for test in tests))


class _OnlyText(pickle.Unpickler):
    """LiveCodeBench packs its hidden tests as a pickled text: nothing else may come out of it."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"a text was expected, not {module}.{name}")


def _private_tests(packed: str) -> list[dict[str, str]]:
    try:
        tests = json.loads(packed)
    except ValueError:
        tests = json.loads(_OnlyText(io.BytesIO(zlib.decompress(base64.b64decode(packed)))).load())
    return list(tests)
