"""What every error that a client can get is made of: each package has its own, and one table renders them all.

Which is `requests/errors.py`; this module stands below everything that raises.
"""

RETRY_AFTER_S = 5
"""Seconds after which what is down now may be back."""


class KineticsError(Exception):
    """A client is told of this one, in words that name nothing it should not know. Subclasses say how."""

    status: int = 500
    """Of the HTTP response."""

    code: str = "internal_error"
    """By which programs tell errors apart: docs/api.md lists them."""

    param: str | None = None
    """The request's field at fault, dotted."""

    retry_after_s: int | None = None
    """Seconds after which another try may succeed, where one may."""

    advice: str = ""
    """Follows the message where a client reads it, though not in a log."""
