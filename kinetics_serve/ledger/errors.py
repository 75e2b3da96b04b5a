"""Why the ledger says no. Imports no SQL, so that a front-end without a ledger does not load any."""


class QuotaExceeded(Exception):
    """The tenant's quota does not cover the request now. `retry_after_s`: the soonest moment at which it can."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(f"{message}; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class RequestTooLarge(Exception):
    """More eFLOPs than the tenant may ever reserve for one request. `maximum`: eFLOPs that it may."""

    def __init__(self, tenant: str, eflops: int, maximum: int, which: str) -> None:
        super().__init__(
            f"this request may cost up to {eflops} eFLOPs, and the maximum for {tenant!r} is {maximum} ({which}): "
            "state a smaller budget or, without a budget, a smaller max_tokens"
        )
        self.maximum = maximum


class LedgerUnavailable(Exception):
    """The database gives no answer. Another try may succeed."""


class LedgerMisuse(Exception):
    """What an administrator asked for can't be done. The message says why and what to do."""
