"""Why the ledger says no. Imports no SQL, so that a front-end without a ledger does not load any."""

from kinetics_serve.errors import RETRY_AFTER_S, KineticsError


class QuotaExceeded(KineticsError):
    """The tenant's quota does not cover the request now. retry_after_s: the soonest moment at which it can."""

    status = 429
    code = "quota_exceeded"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(f"{message}; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class RequestTooLarge(KineticsError):
    """More eFLOPs than the tenant may ever reserve for one request. `maximum`: eFLOPs that it may."""

    status = 400
    code = "invalid_request"

    def __init__(self, tenant: str, eflops: int, maximum: int, which: str) -> None:
        super().__init__(
            f"this request may cost up to {eflops} eFLOPs, and the maximum for {tenant!r} is {maximum} ({which}): "
            "state a smaller budget or, without a budget, a smaller max_tokens"
        )
        self.maximum = maximum


class LedgerUnavailable(KineticsError):
    """The database gives no answer. Another try may succeed."""

    status = 503
    code = "ledger_unavailable"
    retry_after_s = RETRY_AFTER_S
    advice = "; try again in a few seconds"


class OutboxUnavailable(LedgerUnavailable):
    """The outbox can't be read or written. reason: which one and why, for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__("no bill can be kept at the moment, so nothing runs")
        self.reason = reason


class LedgerMisuse(Exception):
    """What an administrator asked for can't be done. The message says why and what to do."""


class NotInLedger(LedgerMisuse):
    """There is no such tenant or key."""
