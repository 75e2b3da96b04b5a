"""Single fields of a request's body, checked."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from kinetics_serve.engine.upstream import Json
from kinetics_serve.requests.errors import invalid

_INTEGER = TypeAdapter(int)


def as_read_by_vllm(value: Any) -> int | None:
    """The whole number that vLLM takes a field's value for, be it 3.0 or "3"; None for what is none to it."""
    try:
        return _INTEGER.validate_python(value)
    except ValidationError:
        return None


def integer(body: Json, field: str, least: int, most: int) -> int | None:
    """A field of the body, as vLLM reads it; None where it is left out. Raises ApiError for anything but such a
    number."""
    value = body.get(field)
    if value is None:
        return None
    number = as_read_by_vllm(value)
    if number is None or not least <= number <= most:
        raise invalid(f"{field} must be a whole number from {least} to {most}, given: {value!r:.100}", field)
    return number


def boolean(body: Json, field: str) -> bool:
    """The same for a truth value, false where it is left out."""
    value = body.get(field)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise invalid(f"{field} must be true or false, given: {value!r:.100}", field)
