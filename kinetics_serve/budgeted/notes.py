"""What a client should know of its request, beyond what it asked: sentences for its bill and its plan."""

from kinetics_serve.budgeted.arms import LiveArm
from kinetics_serve.planner.plan import Plan


def notes_of(plan: Plan[LiveArm]) -> list[str]:
    """Why the plan is as it is, and what keeps its samples from voting."""
    return [*plan.notes, *[note for note in [_endless(plan.arms[0])] if note is not None]]


def _endless(arm: LiveArm) -> str | None:
    """Why none of the samples can end by itself: only those that do have votes."""
    body = arm.prompt.body
    if body.get("ignore_eos"):
        reason, remedy = "ignore_eos lets no sample end before max_tokens", "leave it out"
    elif isinstance(least := body.get("min_tokens"), int) and least >= arm.max_tokens:
        reason = f"min_tokens ({least}) lets no sample end before max_tokens ({arm.max_tokens})"
        remedy = "state fewer min_tokens"
    else:
        return None
    return f"{reason}, so every one counts as cut off and none has a vote: {remedy}, or leave out the budget"
