"""The rules of the architecture, each a test that is named after what it keeps."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinetics_serve.observability.metrics import Metrics

ROOT = Path(__file__).parents[1]

LAYERS = (
    ("commands",),
    ("server",),
    ("api",),
    ("budgeted", "passthrough"),
    ("requests",),
    ("evaluation",),
    ("planner",),
    ("sources",),
    ("scorers",),
    ("engine", "ledger"),
    ("observability",),
    ("runner",),
    ("traces",),
    ("strategies",),
    ("answers",),
    ("cost",),
    ("errors", "registry", "clock", "container"),
)
"""The packages of kinetics_serve, and its lone modules, from the top down: each may use what stands below it."""

RUNS_IN_THE_ENGINES_PYTHON = "kinetics_serve/engine/embedded/gguf_to_safetensors.py"
"""A script that is never imported here: it turns the bundled model into what vLLM reads."""


def modules(package: str) -> dict[str, Path]:
    """The files of a package by the names that they are imported by."""
    found = {}
    for file in sorted((ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(file: Path) -> Iterator[tuple[str, int]]:
    """All that a file imports, for type checkers only and inside functions too, and the lines where it does."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: state the whole name of what is imported"
            yield from ((f"{node.module}.{name.name}", node.lineno) for name in node.names)


def imports_by_line(package: str) -> Iterator[tuple[str, str, str]]:
    """Module, what it imports, and where that stands."""
    for name, file in modules(package).items():
        for imported, line in imports(file):
            yield name, imported, f"{file.relative_to(ROOT)}:{line} imports {imported}"


def room(module: str) -> str:
    """The package or lone module directly in kinetics_serve that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_its_layer() -> None:
    rooms = {room(module) for module in modules("kinetics_serve")} - {"", "__main__"}
    assert rooms <= {name for layer in LAYERS for name in layer}


def test_arrows_only_go_down() -> None:
    height = {name: -index for index, layer in enumerate(LAYERS) for name in layer}
    height["__main__"] = 1
    wrong = []
    for module, imported, where in imports_by_line("kinetics_serve"):
        if imported.startswith("kinetics_serve.") and room(imported) in height:
            here, there = room(module), room(imported)
            if here != there and height[here] <= height[there]:
                wrong.append(where)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ["kinetics_serve", "sparse_backend"])
def test_no_module_imports_itself_in_a_circle(package: str) -> None:
    known = modules(package)
    uses: dict[str, set[str]] = {name: set() for name in known}
    for module, imported, _ in imports_by_line(package):
        target = imported if imported in known else imported.rpartition(".")[0]
        if target in known and target != module:
            uses[module].add(target)

    def ends() -> list[str]:
        """What uses nothing, or is used by nothing: neither is in a circle."""
        used = {name for names in uses.values() for name in names}
        return [name for name, names in uses.items() if not names or name not in used]

    while found := ends():
        for name in found:
            del uses[name]
        for names in uses.values():
            names.difference_update(found)
    assert not uses, uses


def test_the_front_end_imports_neither_torch_nor_what_needs_it() -> None:
    heavy = {"torch", "vllm", "transformers", "triton"}
    wrong = [
        where
        for _, imported, where in imports_by_line("kinetics_serve")
        if imported.partition(".")[0] in heavy and RUNS_IN_THE_ENGINES_PYTHON not in where
    ]
    assert not wrong, "\n".join(wrong)
    script = RUNS_IN_THE_ENGINES_PYTHON.removesuffix(".py").replace("/", ".")
    assert not [where for _, imported, where in imports_by_line("kinetics_serve") if imported.startswith(script)]


@pytest.mark.parametrize(
    ("package", "other"), [("kinetics_serve", "sparse_backend"), ("sparse_backend", "kinetics_serve")]
)
def test_the_two_packages_do_not_import_each_other(package: str, other: str) -> None:
    assert not [where for _, imported, where in imports_by_line(package) if imported.partition(".")[0] == other]


def test_every_metric_is_documented() -> None:
    documented = set(re.findall(r"\bkinetics_\w+", (ROOT / "docs" / "api.md").read_text()))
    exported = set()
    for metric in Metrics().registry.collect():
        exported.add(f"{metric.name}_total" if metric.type == "counter" else metric.name)
    assert exported
    assert exported <= documented, exported - documented
