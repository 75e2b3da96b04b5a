"""The budget that a request states: in its `kinetics`, by a header, or by an effort."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from kinetics_serve.planner.budget import Budget
from kinetics_serve.requests.errors import invalid

BUDGET_HEADER = "x-kinetics-budget"
MAX_BUDGET = 1e30
"""eFLOPs. More than any machine does in a lifetime, and far from where doubles end."""

_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", re.ASCII)
"""Python's own float() would take 1_0e10 too."""

Positive = Annotated[float, Field(gt=0, le=MAX_BUDGET, allow_inf_nan=False, strict=True)]


class BudgetOption(BaseModel, extra="forbid", frozen=True):
    """Exactly one of these. `tokens` are generated tokens; `samples` are dense samples of full length."""

    eflops: Positive | None = Field(default=None, examples=[4e13])
    tokens: Annotated[int, Field(gt=0, le=10**12, strict=True)] | None = Field(default=None, examples=[20000])
    samples: Annotated[float, Field(gt=0, le=10**6, allow_inf_nan=False, strict=True)] | None = Field(
        default=None, examples=[8]
    )
    accuracy: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = Field(default=None, examples=[0.8])

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1 or None in self.model_dump(include=self.model_fields_set).values():
            raise ValueError("state exactly one of eflops, tokens, samples, accuracy")
        return self

    def budget(self) -> Budget:
        """In eFLOPs, tokens or samples: what is not stated by accuracy."""
        if self.eflops is not None:
            return Budget("eflops", self.eflops)
        if self.tokens is not None:
            return Budget("tokens", self.tokens)
        assert self.samples is not None
        return Budget("samples", self.samples)


class EffortOption(BudgetOption, frozen=True):
    """What a `reasoning_effort` buys. Who states one knows no prices, so none is too small."""

    def budget(self) -> Budget:
        return replace(super().budget(), raised=True)


def header_eflops(stated: Sequence[str]) -> float:
    """The budget in a request's headers of this name. Raises ApiError."""
    if len(stated) > 1:
        raise invalid(
            f"the header X-Kinetics-Budget stands {len(stated)} times in the request ({', '.join(stated)[:100]}): "
            "state it once",
            "X-Kinetics-Budget",
        )
    header = stated[0]
    value = float(header) if _NUMBER.fullmatch(header.strip()) else -1.0
    if not 0 < value <= MAX_BUDGET:
        raise invalid(
            f"the header X-Kinetics-Budget must be eFLOPs above 0 and up to {MAX_BUDGET:g}, such as 4e13; "
            f"given: {header[:100]!r}",
            "X-Kinetics-Budget",
        )
    return value
