"""Arms of tests."""

from dataclasses import dataclass

from kinetics_serve.cost import DENSE, KVPolicy, Price
from kinetics_serve.cost.hardware import GPUS
from kinetics_serve.strategies.arm import Arm
from tests.synthetic import ARCHITECTURE

PRICE = Price(ARCHITECTURE, 300.0)
PAPER_B200 = GPUS["paper-b200"]


def arm_of(
    prompt_tokens: int,
    max_tokens: int,
    max_samples: int,
    kv: KVPolicy = DENSE,
    price: Price = PRICE,
    model: str = "tiny",
) -> Arm:
    return Arm(model, kv, price, prompt_tokens, max_tokens, max_samples)


@dataclass(frozen=True, slots=True)
class FlatArm(Arm):
    """One whose prompt costs a hundred eFLOPs, and each token ten, times `dearness`."""

    dearness: int = 1

    def worst_case(self, tokens: int) -> int:
        return self.dearness * (100 + 10 * tokens)


def flat_arm(max_samples: int = 32, max_tokens: int = 64, dearness: int = 1) -> Arm:
    return FlatArm("flat", DENSE, PRICE, 10, max_tokens, max_samples, dearness=dearness)
