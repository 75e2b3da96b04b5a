"""Plans as JSON, for the command line and for HTTP."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.planner.choose import ArmOf, ArmT, Choice, choose_for_budget
from kinetics_serve.planner.figures import served_frontier
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


def choice_report(calibration: Calibration, choice: Choice[ArmT]) -> dict[str, Any]:
    """The plan, what it should bring, with its interval, and what it should cost."""
    point = choice.point
    second: dict[str, Any] = {}
    for arm in point.arms[1:]:
        second = {
            "second_model": arm.model,
            "second_kv_budget": arm.kv.budget or "dense",
            "second_max_tokens": arm.max_tokens,
            "second_max_samples": arm.max_samples,
        }
    return {
        **point.options,  # first, so that none of a foreign strategy hides a field of ours
        "basis": "calibration",
        "assumptions": [
            f"questions like the {calibration.questions} of {calibration.task} that were recorded, graded as there",
            "the highest of many measured accuracies is a little lucky: expect the interval's lower half",
        ],
        "model": point.arm.model,
        "kv_budget": point.arm.kv.budget or "dense",
        "strategy": point.strategy,
        "max_tokens": point.arm.max_tokens,
        "max_samples": point.arm.max_samples,
        "budget_eflops": choice.budget,
        "expected_eflops": choice.expected,
        "expected_accuracy": asdict(point.accuracy),
        **second,
    }


def prospects(calibration: Calibration, eflops: int, arm_of: ArmOf[ArmT]) -> dict[str, Any]:
    """The expected accuracy of half and of twice a budget; None where it buys nothing calibrated."""
    half, twice = (choose_for_budget(calibration, budget, arm_of) for budget in (eflops // 2, eflops * 2))
    return {
        "half_budget_accuracy": asdict(half.point.accuracy) if half is not None else None,
        "twice_budget_accuracy": asdict(twice.point.accuracy) if twice is not None else None,
    }


def frontier_report(calibration: Calibration, may_use: Callable[[str], bool]) -> dict[str, Any]:
    """Every served way of spending on models that `may_use` allows, with its intervals, the cheapest first.

    eFLOPs are those of a question on the calibration's own prompts.
    """
    points = [point for point in calibration.served if all(may_use(arm.model) for arm in point.arms)]
    best = {id(point) for _, _, point in served_frontier(points)}
    return {
        "object": "list",
        "task": calibration.task,
        "questions": calibration.questions,
        "hardware": calibration.hardware.name,
        "data": [
            {
                "model": point.arm.model,
                "kv_budget": point.arm.kv.budget or "dense",
                "strategy": point.strategy,
                "max_tokens": point.arm.max_tokens,
                "samples": point.samples,
                "samples_worth": point.samples_worth,
                "spent_eflops": asdict(point.spent),
                "accuracy": asdict(point.accuracy),
                "on_frontier": id(point) in best,
            }
            for point in sorted(points, key=lambda point: point.spent.mean)
        ],
    }
