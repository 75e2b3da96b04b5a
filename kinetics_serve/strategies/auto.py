"""The strategy for clients that name none."""

from kinetics_serve.strategies.arm import Arm

MIN_VOTERS = 3
"""Two votes can only agree or tie: a majority needs three."""


def auto(arm: Arm, budget: int, greedy: bool) -> str:
    """Majority voting where the budget, in eFLOPs, buys enough voters at full length, else one sample.

    Without a calibration nothing is known of the task, and of the strategies that need no scorer voting is the
    one whose gain is known to hold across tasks (Wang et al. 2022, arXiv 2203.11171). Greedy decoding gives
    the same sample every time, so it gets one.
    """
    if greedy or min(arm.max_samples, budget // arm.full_length) < MIN_VOTERS:
        return "single"
    return "majority_vote"
