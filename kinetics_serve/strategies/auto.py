"""The strategy for clients that name none."""

from kinetics_serve.strategies.arm import Arm

SINGLE = "single"

MIN_VOTERS = 3
"""Two votes can only agree or tie: a majority needs three."""


def auto(arm: Arm, budget: int, greedy: bool) -> str:
    """Majority voting where the budget, in eFLOPs, buys enough voters at full length, else one sample.

    Without a calibration nothing is known of the task, and of the strategies that need no scorer voting is the
    one whose gain is known to hold across tasks (Wang et al. 2022, arXiv 2203.11171). Greedy decoding gives
    the same sample every time, so it gets one.
    """
    if greedy or min(arm.max_samples, budget // arm.full_length) < MIN_VOTERS:
        return SINGLE
    return "majority_vote"


def why_single(arm: Arm, budget: int, greedy: bool) -> str:
    """What keeps `auto` from a vote, and what would allow one."""
    if greedy:
        return (
            "auto runs one sample: temperature 0 gives the same one every time, so a vote needs a temperature above 0"
        )
    if arm.max_samples < MIN_VOTERS:
        return f"auto runs one sample: a vote needs {MIN_VOTERS}, and max_samples is {arm.max_samples}"
    return (
        f"auto runs one sample: a vote needs {MIN_VOTERS} of max_tokens ({arm.max_tokens}), which are "
        f"{MIN_VOTERS * arm.full_length} eFLOPs: state as much, or fewer max_tokens"
    )
