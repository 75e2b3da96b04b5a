"""What the samples of a request run on, and what they cost there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from kinetics_serve.cost import Cost, KVPolicy, Price, Steps


@dataclass(frozen=True, slots=True)
class Arm:
    """A model with a KV budget: what samples of one prompt cost on it, how many there may be and how long."""

    model: str
    kv: KVPolicy
    price: Price
    prompt_tokens: int
    max_tokens: int
    """Of a sample."""
    max_samples: int
    extra: Callable[[int], Cost] | None = None
    """The most that a sample of so many tokens costs beyond its own generation: forcing its answer, scoring it."""
    _alone: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _samples: dict[tuple[int, int], Cost] = field(default_factory=dict, init=False, repr=False, compare=False)
    _settled: dict[tuple[int, int, Steps], tuple[Cost, int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def key(self) -> tuple[str, int | None]:
        """Model and KV budget."""
        return self.model, self.kv.budget

    @property
    def full_length(self) -> int:
        """eFLOPs to reserve for a sample of max_tokens."""
        return self.worst_case(self.max_tokens)

    def worst_case(self, tokens: int) -> int:
        """eFLOPs to reserve for a sample: nothing cached, nothing shared, `tokens` generated, and all that is extra."""
        if self.extra is None:
            return self.alone(tokens)
        return self.eflops(self.sample(tokens) + self.extra(tokens))

    def alone(self, tokens: int) -> int:
        """eFLOPs of a sample of so many tokens with nothing cached, nothing shared, nothing extra."""
        known = self._alone.get(tokens)
        if known is None:
            known = self._alone[tokens] = self.eflops(self.sample(tokens))
        return known

    def dense(self, tokens: int) -> int:
        """The same with dense attention: what a budget stated in samples or tokens is counted in."""
        return self.eflops(self.price.sample(self.prompt_tokens, tokens))

    def sample(self, tokens: int, cached_tokens: int = 0) -> Cost:
        """A sample of so many tokens that shares nothing with others. Policies and replays ask again and again."""
        known = self._samples.get((tokens, cached_tokens))
        if known is None:
            known = self.price.sample(self.prompt_tokens, tokens, self.kv, cached_tokens)
            self._samples[tokens, cached_tokens] = known
        return known

    def settled(self, tokens: int, cached_tokens: int, charged: Steps) -> tuple[Cost, int]:
        """A sample that is charged for so many of its reads of the prompt, see Price.settle; also in eFLOPs."""
        known = self._settled.get((tokens, cached_tokens, charged))
        if known is None:
            others_pay = self.price.reads_others_pay(self.prompt_tokens, tokens, self.kv, charged)
            cost = self.sample(tokens, cached_tokens) - others_pay
            known = self._settled[tokens, cached_tokens, charged] = cost, self.eflops(cost)
        return known

    def eflops(self, cost: Cost) -> int:
        """In whole eFLOPs, rounded up, so that sums are exact."""
        return ceil(self.price.eflops(cost))
