"""What our packages use of vLLM, as a version's sources have it: read, not imported, so that any version will do.

    python -m tests.sparse_backend.vllm_sources FOLDER VERSION     writes tests/data/vllm/VERSION.json

FOLDER holds `vllm/`: site-packages, or a wheel that was unpacked.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "tests" / "data" / "vllm"
PACKAGES = ("sparse_backend", "kinetics_serve")

GROUPS = ("vllm.general_plugins", "vllm.logits_processors", "vllm.stat_logger_plugins")
"""Entry points under which vLLM finds us."""

Record = dict[str, str | dict[str, str]]
"""By `module:name`: a function's parameters, or a class's or module's members that we name, with their parameters."""


@cache
def trees() -> list[ast.Module]:
    return [ast.parse(file.read_text()) for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


@cache
def parsed(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text()).body


def imported() -> list[tuple[str, str]]:
    """(module, name) of everything that we import from vLLM."""
    found = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vllm":
                found |= {(node.module, alias.name) for alias in node.names}
    return sorted(found)


@cache
def named() -> set[str]:
    """Attributes that we read, methods that we define, and arguments that we name."""
    found: set[str] = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                found.add(node.name)
    return found


def metrics() -> list[str]:
    """vLLM's metrics that the front-end reads and the dashboards show."""
    files = [*(ROOT / "kinetics_serve").rglob("*.py"), *(ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")]
    return sorted({name for file in files for name in re.findall(r"vllm:[a-z_]+", file.read_text())})


def options() -> list[str]:
    """Of `vllm serve`, that the embedded engine starts with."""
    text = (ROOT / "kinetics_serve" / "engine" / "embedded" / "launch.py").read_text()
    return sorted({name.removeprefix("no-") for name in re.findall(r'"--([a-z-]+)"', text)})


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Names, order and whether there are defaults: types change more often than they matter."""
    given = function.args
    for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]:
        if argument is not None:
            argument.annotation = None
    return ast.unparse(given)


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """With those under a condition, such as TYPE_CHECKING, or in a try."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from statements([*node.body, *[each for handler in node.handlers for each in handler.body]])


def members(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node in statements(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, parameters(node)
        elif isinstance(node, ast.ClassDef):
            yield node.name, "a class"
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, "a value"
        elif isinstance(node, ast.Assign):
            yield from ((target.id, "a value") for target in node.targets if isinstance(target, ast.Name))


class Sources:
    """A version of vLLM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, module: str) -> Path | None:
        path = self.folder.joinpath(*module.split("."))
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if candidate.exists():
                return candidate
        return None

    def find(self, module: str, name: str) -> str | dict[str, str] | None:
        """What `from module import name` gives; None where there is no such thing."""
        if self.file(f"{module}.{name}") is not None:
            return self._members(self._body(f"{module}.{name}"))
        for node in statements(self._body(module)):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return parameters(node)
            if isinstance(node, ast.ClassDef) and node.name == name:
                return self._members(node.body)
            if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
                (original,) = [alias.name for alias in node.names if (alias.asname or alias.name) == name]
                return self.find(self._absolute(module, node), original)
        return "a value" if name in dict(members(self._body(module))) else None

    def record(self) -> Record:
        """Of all that we use. Raises LookupError for what this version lacks."""
        found: Record = {}
        for module, name in imported():
            what = self.find(module, name)
            if what is None:
                raise LookupError(f"vLLM in {self.folder} has no {name} in {module}")
            found[f"{module}:{name}"] = what
        text = "\n".join(file.read_text() for file in (self.folder / "vllm").rglob("*.py"))
        for kind, names in (
            ("metric", [metric.removesuffix("_total") for metric in metrics()]),
            ("entry point", GROUPS),
            ("option", [option.replace("-", "_") for option in options()]),
        ):
            for each in names:
                if re.search(rf"\b{each}\b", text) is None:
                    raise LookupError(f"vLLM in {self.folder} has no {kind} {each}")
                found[f"{kind}:{each}"] = "there"
        return found

    def _body(self, module: str) -> list[ast.stmt]:
        file = self.file(module)
        return parsed(file) if file else []

    def _members(self, body: list[ast.stmt]) -> dict[str, str]:
        wanted = named()
        return {name: what for name, what in sorted(dict(members(body)).items()) if name in wanted}

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        file = self.file(module)
        above = module.split(".") if file and file.name == "__init__.py" else module.split(".")[:-1]
        kept = above[: len(above) - node.level + 1]
        return ".".join([*kept, *([node.module] if node.module else [])])


def main() -> None:
    folder, version = Path(sys.argv[1]), sys.argv[2]
    RECORDS.mkdir(exist_ok=True)
    record = Sources(folder).record()
    (RECORDS / f"{version}.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
