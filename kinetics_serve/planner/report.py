"""Plans as JSON, for the command line and for HTTP."""

from dataclasses import asdict
from typing import Any

from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.planner.choose import Choice, TermsOf, choose_for_budget
from kinetics_serve.planner.law import PAPER_KV_GROWTH, PAPER_TOKENS_GROWTH

GUIDANCE: dict[str, Any] = {
    "basis": "guidance",
    "assumptions": [
        "no calibration: nothing is known of this task, so no accuracy is promised",
        "votes are bought where the budget covers three samples of full length (arXiv 2203.11171)",
        f"for twice the budget, expect the best N × length to grow by {PAPER_TOKENS_GROWTH} and the best KV budget by "
        f"{PAPER_KV_GROWTH}, as Kinetics found for Qwen3 on AIME with block top-k attention (arXiv 2506.05333)",
    ],
}


def choice_report(calibration: Calibration, choice: Choice) -> dict[str, Any]:
    """The plan, what it should bring, with its interval, and what it should cost."""
    point = choice.point
    second = point.second
    cascade = (
        {
            "escalate_below": point.escalate_below,
            "second_model": second.model,
            "second_kv_budget": "dense" if second.kv.budget is None else second.kv.budget,
            "second_max_tokens": second.max_tokens,
            "second_max_samples": second.max_samples,
        }
        if second is not None
        else {}
    )
    return {
        "basis": "calibration",
        "assumptions": [
            f"questions like the {calibration.questions} of {calibration.task} that were recorded, graded as there",
            "the highest of many measured accuracies is a little lucky: expect the interval's lower half",
        ],
        "model": point.model,
        "kv_budget": "dense" if point.kv.budget is None else point.kv.budget,
        "strategy": point.strategy,
        "stop_confidence": point.stop_confidence,
        "deciding_votes": point.deciding_votes,
        "max_tokens": point.max_tokens,
        "max_samples": point.max_samples,
        "budget_eflops": choice.budget,
        "expected_eflops": choice.expected,
        "expected_accuracy": asdict(point.accuracy),
        **cascade,
    }


def prospects(calibration: Calibration, eflops: int, terms_of: TermsOf) -> dict[str, Any]:
    """The expected accuracy of half and of twice a budget; None where it buys nothing calibrated."""
    half, twice = (choose_for_budget(calibration, budget, terms_of) for budget in (eflops // 2, eflops * 2))
    return {
        "half_budget_accuracy": asdict(half.point.accuracy) if half is not None else None,
        "twice_budget_accuracy": asdict(twice.point.accuracy) if twice is not None else None,
    }
