"""Why a sample has no vote."""

from enum import StrEnum


class NoVote(StrEnum):
    """A reason, as clients are told it."""

    CUT_OFF = "cut_off"
    """By its max_tokens, or by the engine."""
    STOPPED = "stopped"
    """Given up by its policy."""
    CANCELLED = "cancelled"
    """The request ended before it did."""
    FAILED = "failed"
    """Its server failed it, or what should have scored it did."""
    EMPTY = "empty"
    """It says nothing."""
    THINKING = "unfinished_thinking"
    """All that it says is a thought that never ended."""
    BROKEN_CALL = "broken_tool_call"
    """It calls a function without a name, or with arguments that are no JSON object."""
    NO_ANSWER = "no_answer"
    """The extractor finds none in what it says."""
    PROGRAM_FAILED = "program_failed"
    """Its program ends with an error on one of the inputs, or writes too much."""
    PROGRAM_TIMED_OUT = "program_timed_out"
    """Its program takes too long on one of the inputs, or on all of them together."""


class HasNoVote(Exception):
    """Raised for an answer that can't be counted."""

    def __init__(self, reason: NoVote) -> None:
        super().__init__(reason.value)
        self.reason = reason
