"""An OpenAPI document as a page in Markdown: routes first, then the objects that go in and out."""

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

SCHEMAS = "#/components/schemas/"


def page_of(document: Json) -> str:
    schemas: Json = document["components"]["schemas"]
    lines = ["## Routes", ""]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += [f"### `{method.upper()} {path}`", "", *_operation(operation)]
    lines += ["## Objects", ""]
    for name, schema in sorted(schemas.items()):
        lines += [f"### {name}", "", schema.get("description", ""), "", *_fields(schema), ""]
    return "\n".join(lines)


def _operation(operation: Json) -> Iterator[str]:
    yield operation.get("description") or operation.get("summary", "")
    yield ""
    for given in operation.get("parameters", ()):
        about = given.get("description") or given["schema"].get("description", "")
        yield f"* `{given['name']}` ({given['in']}): {_line(about)}"
    for content in _content(operation.get("requestBody", {})):
        yield f"* takes {content}"
    for status, answer in operation["responses"].items():
        told = " or ".join(_content(answer))
        yield f"* **{status}**: {_line(answer['description'])}{f', {told}' if told else ''}"
    yield ""


def _content(part: Json) -> list[str]:
    """What a body may be: its type of media, and its schema where that says more."""
    found = []
    for media, content in part.get("content", {}).items():
        kind = _type(content.get("schema", {}))
        found.append(f"`{media}`" + (f" {kind}" if kind else ""))
    return found


def _fields(schema: Json) -> Iterator[str]:
    properties: Json = schema.get("properties", {})
    if not properties:
        yield _type(schema)
        return
    yield "| field | type | default | |"
    yield "|---|---|---|---|"
    for name, field in properties.items():
        required = name in schema.get("required", ())
        default = "required" if required else _code(field["default"]) if field.get("default") is not None else ""
        yield f"| `{name}` | {_type(field)} | {default} | {_line(field.get('description', ''))} |"


def _type(schema: Json) -> str:
    """In Markdown, on one line; objects with a section of their own are links to it."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(SCHEMAS)
        return f"[{name}](#{name.lower()})"
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(filter(None, map(_type, schema[choice]))))
    if "enum" in schema or "const" in schema:
        return ", ".join(map(_code, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {})) or 'anything'}"
    kinds = schema.get("type", "")
    return str(kinds if isinstance(kinds, str) else " or ".join(kinds)) + _bounds(schema)


def _bounds(schema: Json) -> str:
    said = {"minimum": "≥ ", "exclusiveMinimum": "> ", "maximum": "≤ ", "exclusiveMaximum": "< "}
    found = [f"{sign}{schema[name]:g}" for name, sign in said.items() if name in schema]
    return f" {', '.join(found)}" if found else ""


def _code(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _line(text: str) -> str:
    """As a cell of a table holds it."""
    return " ".join(text.split()).replace("|", "\\|")
