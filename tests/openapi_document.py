"""What the OpenAPI document says of requests and answers."""

from typing import Any

import httpx
import schemathesis
from fastapi import FastAPI

Json = dict[str, Any]


def document_of(url: str) -> Json:
    fetched: Json = httpx.get(f"{url}/openapi.json").json()
    return fetched


def undescribed(document: Json, name: str, answer: Json) -> list[str]:
    """The fields of an answer, and of what is in it, that the schema of this name lacks; and those it demands."""
    schema = document["components"]["schemas"][name]
    found = [f"{name}.{field}" for field in answer.keys() - schema["properties"].keys()]
    found += [f"{name} lacks {field}" for field in schema.get("required", ()) if field not in answer]
    for field, described in schema["properties"].items():
        values: Any = answer.get(field)
        for value in values if isinstance(values, list) else [values]:
            for part in _schemas(described) if isinstance(value, dict) else ():
                found += undescribed(document, part, value)
    return found


def _schemas(described: Any) -> set[str]:
    """Of the objects that a field may hold, itself or in a list."""
    if isinstance(described, list):
        return {name for each in described for name in _schemas(each)}
    if not isinstance(described, dict):
        return set()
    if "$ref" in described:
        return {described["$ref"].rpartition("/")[2]}
    return {name for key in ("anyOf", "items") for name in _schemas(described.get(key))}


def operations(app: FastAPI) -> list[Any]:
    """What the document allows, for schemathesis to make requests of."""
    results: Any = schemathesis.openapi.from_dict(app.openapi()).get_all_operations()
    return [result.ok() for result in results]
