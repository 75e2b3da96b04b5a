"""What a client reports of a stream, and what was true."""

from dataclasses import dataclass

ANSWER_TOKENS = 20
TOKEN_MS = 30.0
REQUESTS = 5

KINETICS = {"budget": {"samples": 4}, "strategy": "best_of_n", "max_samples": 4}
"""Four samples, all of which run to their end."""

TOLERANCE = 0.35
SLACK_MS = 80.0
"""Machines are busy, and clients start their clocks at different moments."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Means of a few requests; None where a client has no such figure. tokens: of one answer."""

    text_ms: float | None = None
    """To the first text."""
    token_ms: float | None = None
    """From one piece of text to the next."""
    tokens: float | None = None


def wrong(reported: Figures, true: Figures) -> list[str]:
    """What a client reports that is not so."""
    found = []
    if reported.tokens is not None and reported.tokens != true.tokens:
        found.append("tokens")
    if _differ(reported.text_ms, true.text_ms, SLACK_MS):
        found.append("time to text")
    if _differ(reported.token_ms, true.token_ms, SLACK_MS / 4):
        found.append("time per token")
    return found


def _differ(reported_ms: float | None, true_ms: float | None, slack_ms: float) -> bool:
    if reported_ms is None or true_ms is None:
        return False
    return abs(reported_ms - true_ms) > slack_ms + TOLERANCE * true_ms
