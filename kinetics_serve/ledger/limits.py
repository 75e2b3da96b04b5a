"""What a tenant may use, and who it is."""

from dataclasses import dataclass, field

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Limits:
    """A tenant's quotas. None is no limit."""

    window_eflops: int | None = None
    """In any `window_s` seconds."""
    window_s: int = DAY_S
    month_eflops: int | None = None
    """In a calendar month, UTC."""
    request_eflops: int | None = None
    """For one request."""
    concurrency: int | None = None
    """Requests that run at the same time."""
    models: tuple[str, ...] | None = None
    """The names of those that the tenant may use."""

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
