"""Keeps requests away from a server that fails them."""

FAILURES_TO_OPEN = 5
"""Failures in a row of a server that still answers connections."""

FIRST_COOL_DOWN_S = 1.0
LONGEST_COOL_DOWN_S = 60.0


class Circuit:
    """Closed: requests flow. Open: none do, for a time. On trial (half-open): they may, until one succeeds or fails.

    It opens after FAILURES_TO_OPEN failures in a row, at once when the server was lost, and at once when a trial
    fails. Each time it opens without a success since the last, it stays open twice as long. `now`: seconds, monotonic.
    openings: how often it has opened, ever.
    """

    def __init__(self) -> None:
        self.openings = 0
        self._failures = 0
        self._untried = False
        self._cool_down_s = FIRST_COOL_DOWN_S
        self._open_until = float("-inf")

    def is_open(self, now: float) -> bool:
        return now < self._open_until

    def on_trial(self, now: float) -> bool:
        return self._untried and not self.is_open(now)

    def succeeded(self) -> None:
        """The server has answered a request to its end."""
        self._failures = 0
        self._untried = False
        self._cool_down_s = FIRST_COOL_DOWN_S

    def failed(self, now: float, lost: bool) -> None:
        """A request failed. lost: no connection was to be had. While open, nothing changes: all requests that were in
        flight fail for one reason.
        """
        if self.is_open(now):
            return
        self._failures += 1
        if lost or self._untried or self._failures >= FAILURES_TO_OPEN:
            self.openings += 1
            self._open_until = now + self._cool_down_s
            self._cool_down_s = min(2 * self._cool_down_s, LONGEST_COOL_DOWN_S)
            self._untried = True
            self._failures = 0
