"""The documents and the code tell the same story."""

import re
from pathlib import Path

import pytest
from typer import Context
from typer.main import get_command

from kinetics_serve.commands.main import app
from tests.documents import DOCUMENTS, commands
from tests.test_architecture import LAYERS, ROOT

PACKAGES = (ROOT / "kinetics_serve", ROOT / "sparse_backend")
FOLDERS = (ROOT, *PACKAGES, *(ROOT / "kinetics_serve").iterdir(), ROOT / "sparse_backend" / "kernels" / "triton")
"""What a path in a document may be in."""

ELSEWHERE = {
    "pip": "`make wheel` and tests/test_examples.py install with it",
    "vllm": "tests/sparse_backend/test_engine.py starts engines with these options",
    "docker": "docs/deployment.md says what has been tried",
    "podman": "the same",
    "cyclonedx-py": "the same",
    "kubectl": "tests/deploy/test_kubernetes.py renders and checks what it would apply",
    "pre-commit": "a tool of whoever wants it",
}
"""Programs of others that documents call, and where that is run."""

NEEDS_A_GPU = re.compile(r"engine-cuda|attention_gpu|overlays/(gpu|ha)|--profile cuda")

ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


def paths(text: str) -> set[str]:
    """Files of ours, and folders with a slash at their end, in code quotes. NAME stands for any."""
    named = re.findall(r"`(\w[\w./-]*)`", text)
    return {name for name in named if re.search(r"/$|/.*\.\w+$|\.(py|md)$", name) and "NAME" not in name}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_documents_name_and_link_to_exists(document: Path) -> None:
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert not [link for link in links if not (document.parent / link).exists()]
    assert not [path for path in paths(text) if not any((folder / path).exists() for folder in FOLDERS)]


def test_the_architecture_names_every_package() -> None:
    for package in PACKAGES:
        for file in package.rglob("__init__.py"):
            assert any(f"/{file.parent.name}/" in f"/{path}" for path in paths(ARCHITECTURE)), file.parent


def test_the_architectures_floors_are_those_that_are_kept() -> None:
    rows = re.findall(r"^\| (\d+) \| (`.*?`) \|", ARCHITECTURE, re.M)
    told = [(int(floor), name) for floor, names in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", names)]
    assert told == [(len(LAYERS) - index, name) for index, layer in enumerate(LAYERS) for name in layer]


def mistake(words: list[str]) -> str | None:
    """What is wrong with a command line; None where nothing is, or it is no command."""
    program, arguments = words[0], words[1:]
    if program == "kinetics-serve":
        return unparsed(arguments)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        named = [word for word in arguments if "=" not in word]
        return next((f"no target {word}" for word in named if word not in targets), None)
    if program.endswith("python") and arguments[:1] == ["-m"]:
        return unknown_options(arguments[1], arguments[2:])
    if re.match(r"(deploy|examples)/", program):
        return None if (ROOT / program).is_file() else f"no {program}"
    return None


def unparsed(arguments: list[str]) -> str | None:
    """Why the command line of `kinetics-serve` would be refused. Values are not looked at: they stand for others."""
    command = get_command(app)
    while arguments and hasattr(command, "commands") and arguments[0] in command.commands:
        command, arguments = command.commands[arguments[0]], arguments[1:]
    try:
        _, rest, _ = command.make_parser(Context(command)).parse_args(list(arguments))
    except Exception as error:
        return str(error)
    return f"no command {rest[0]}" if rest and hasattr(command, "commands") else None


def unknown_options(module: str, arguments: list[str]) -> str | None:
    """Options that a module of ours doesn't have."""
    if not module.startswith(("benchmarks", "tests")):
        return None
    path = ROOT / module.replace(".", "/")
    file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__main__.py"
    if not file.is_file():
        return f"no module {module}"
    text = file.read_text()
    return next((f"{module} has no {word}" for word in arguments if word[:2] == "--" and f'"{word}"' not in text), None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_document_is_one_that_there_is(document: Path) -> None:
    wrong = [(" ".join(words), mistake(words)) for words in commands(document.read_text())]
    assert not [(words, why) for words, why in wrong if why is not None]


def test_every_program_in_a_block_of_commands_is_ours_or_named_with_where_it_is_run() -> None:
    ours = re.compile(r"kinetics-serve|make|(\.venv/bin/)?python|(deploy|examples)/|\./setup|export|cd")
    known = {words[0] for document in DOCUMENTS for words in commands(document.read_text())}
    fenced = "\n".join(
        block
        for document in DOCUMENTS
        for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```", document.read_text(), re.M | re.S)
    )
    programs = {line.split()[0] for line in fenced.splitlines() if line.strip() and "{{" not in line}
    assert not [program for program in programs if not ours.match(program) and program not in ELSEWHERE]
    assert not ELSEWHERE.keys() - known - {"pre-commit"}


def test_a_command_that_needs_a_gpu_says_so() -> None:
    for document in DOCUMENTS:
        for section in re.split(r"^#", document.read_text(), flags=re.M):
            assert not NEEDS_A_GPU.search(section) or "GPU" in section, (document, section[:60])


def test_a_wrong_command_is_found() -> None:
    text = "See\n\n    kinetics-serve serve --modle m\n    make dmeo\n    kinetics-serve sevre\n"
    assert [mistake(words) is not None for words in commands(text)] == [True, True, True]
    assert mistake(["python", "-m", "benchmarks.cost_model", "--jsn"]) == "benchmarks.cost_model has no --jsn"
    assert mistake(["kinetics-serve", "serve", "--model", "m", "--", "--max-model-len", "1"]) is None


def test_the_readme_fits_one_and_a_half_screens_and_its_picture_says_what_its_words_say() -> None:
    """The numbers under the picture are those that the notebook prints, which tests/test_notebooks.py runs."""
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 80
    caption = " ".join(readme[readme.index("*GSM8K") : readme.index("The notebook")].split())
    printed = (ROOT / "examples" / "notebooks" / "savings.ipynb").read_text()
    plain_words = r"with 16 samples is right on ([\d.]+) .* for ([\d.]+ T)"
    words = plain_words + r" .* needs ([\d.]+ T) .* budget ([\d.]+ T) for ([\d.]+)\."
    told = re.search(words, caption)
    assert told is not None
    accuracy, plain, same, half, half_accuracy = told.groups()
    row = r"(\d+) (\w+) +accuracy ([\d.]+) \[.*?\]  spent +([\d.]+ T) of"
    rows = {
        (int(number), name): (f"{float(right):.2f}", spent) for number, name, right, spent in re.findall(row, printed)
    }
    assert rows[16, "self_consistency"] == (accuracy, plain)
    assert rows[16, "majority_vote"] == (accuracy, same)
    assert rows[8, "majority_vote"] == (half_accuracy, half)
