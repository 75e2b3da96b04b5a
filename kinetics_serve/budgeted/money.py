"""Money beside eFLOPs, where somebody said what an hour of the hardware costs."""

from collections.abc import Mapping
from typing import Any

from kinetics_serve.cost import Price

UNIT, MONEY = "_eflops", "_dollars"


def in_dollars(amounts: Mapping[str, Any], price: Price) -> dict[str, float]:
    """For each amount `…_eflops`, the same as `…_dollars`. Empty where the price of an hour isn't known."""
    if price.dollars_per_eflop is None:
        return {}
    stated = {name: value for name, value in amounts.items() if name.endswith(UNIT) and value is not None}
    return {name.removesuffix(UNIT) + MONEY: value * price.dollars_per_eflop for name, value in stated.items()}
