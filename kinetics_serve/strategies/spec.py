"""What a package announces of a strategy, and the strategies that are announced."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from kinetics_serve.registry import Registry
from kinetics_serve.strategies.state import Policy

AUTO = "auto"
"""Not a strategy, but a client's word for the one that suits the budget."""

STOP_CONFIDENCES = (0.8, 0.95)
"""What a calibration tries of the options that have one."""


class Options(BaseModel):
    """What a client may set of a strategy. A subclass's fields and their docstrings are the strategy's document."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class VoteOptions(Options):
    stop_confidence: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.95
    """The probability that the leading answer wins at which voting stops."""


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4 … up to `most`, which is always the last."""
    powers = [2**exponent for exponent in range(most.bit_length()) if 2**exponent <= most]
    return powers if powers[-1] == most else [*powers, most]


def no_trials(worth: int) -> Iterable[Mapping[str, Any]]:
    return ()


def one_trial(worth: int) -> Iterable[Mapping[str, Any]]:
    """For any budget that buys several samples, the defaults."""
    return ({},) if worth > 1 else ()


def stop_confidences(worth: int) -> Iterable[Mapping[str, Any]]:
    """For any budget that buys several samples, each of STOP_CONFIDENCES."""
    return [{"stop_confidence": each} for each in STOP_CONFIDENCES] if worth > 1 else ()


@dataclass(frozen=True, slots=True)
class StrategySpec:
    """A strategy: its name, what can be set, and how its policy is made."""

    name: str
    policy: Callable[[Any], Policy]
    """Of options, which are an instance of `options`."""
    options: type[Options] = Options
    by_score: bool = False
    """Scores decide, so that a scorer that costs can be worth its price."""
    arms: int = 1
    """How many it runs on. One that needs several is chosen by a calibration, not by a client."""
    trials: Callable[[int], Iterable[Mapping[str, Any]]] = no_trials
    """The options that a calibration tries on one arm, for a budget of so many samples."""
    by_group_confidence: bool = False
    """A replay needs the lowest group confidences of its trials."""


STRATEGIES: Registry[StrategySpec] = Registry("kinetics_serve.strategies", "strategy", StrategySpec)


def policy_of(name: str, options: Mapping[str, Any], stop_confidence: float | None = None) -> Policy:
    """The policy of that name. stop_confidence: for the strategies that have one, unless the options state another.

    Raises UnknownPart, BrokenPart, and pydantic's ValidationError for options that it doesn't take.
    """
    spec = STRATEGIES.get(name)
    if stop_confidence is not None and "stop_confidence" in spec.options.model_fields:
        options = {"stop_confidence": stop_confidence, **options}
    return spec.policy(spec.options.model_validate(options))
