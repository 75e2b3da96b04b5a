"""Code of ours in a page, read when the site is built, so that the page shows what is there."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def source(path: str, *names: str) -> str:
    """A file of the repository, or of a Python file what it defines by these names. ValueError if it doesn't."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if not names:
        return text
    lines, found = text.splitlines(), {}
    for node in ast.parse(text).body:
        for name in _defined(node):
            found[name] = "\n".join(lines[_first_line(node) - 1 : node.end_lineno])
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{path} defines {', '.join(found)}; not {', '.join(missing)}")
    return "\n\n\n".join(found[name] for name in names)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *[decorator.lineno for decorator in getattr(node, "decorator_list", ())]])
