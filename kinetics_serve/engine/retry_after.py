"""When a server that has too much to do wants to be asked again."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import ceil

LONGEST_S = 24 * 3600
"""Nobody means longer waits; a clock that is wrong does."""


def retry_after_s(header: str | None, now: datetime | None = None) -> int | None:
    """Seconds, 1 to LONGEST_S, by a `Retry-After` header, which has seconds or a date; None where it says neither.

    now: with a time zone; by default, the present.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        wait = int(text[:10])
    else:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, OverflowError):  # a number in it that no date has
            return None
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        wait = ceil((date - (now or datetime.now(UTC))).total_seconds())
    return max(1, min(wait, LONGEST_S))
