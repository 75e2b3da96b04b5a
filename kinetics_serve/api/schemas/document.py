"""What every model of the OpenAPI document has."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MODEL = "SmolLM2-135M-Instruct"
"""In examples."""


class Open(BaseModel):
    """Other fields are allowed too: they are vLLM's."""

    model_config = ConfigDict(extra="allow")


def field(example: Any, text: str | None = None, default: Any = None, **more: Any) -> Any:
    return Field(default, examples=[example], description=text, **more)
