"""What a tenant may use, and who it is."""

from dataclasses import dataclass, field

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Limits:
    """None is no limit. Amounts in eFLOPs.

    window_eflops: in any `window_s` seconds. month_eflops: in a calendar month, UTC. request_eflops: for one request.
    concurrency: requests that run at the same time. models: the names that the tenant may use.
    """

    window_eflops: int | None = None
    window_s: int = DAY_S
    month_eflops: int | None = None
    request_eflops: int | None = None
    concurrency: int | None = None
    models: tuple[str, ...] | None = None

    @property
    def priced(self) -> bool:
        """Whether a request must have a price to be admitted."""
        return any(limit is not None for limit in (self.window_eflops, self.month_eflops, self.request_eflops))


@dataclass(frozen=True, slots=True)
class Tenant:
    """cache_salt: keeps the tenant's prompts apart from others' in vLLM's prefix cache. A secret."""

    id: int
    name: str
    limits: Limits
    cache_salt: str = field(repr=False)

    def may_use(self, model: str) -> bool:
        return self.limits.models is None or model in self.limits.models
