from math import log
from typing import Any

import pytest

from kinetics_serve.scorers.judge import expected_grade, judge_messages
from kinetics_serve.scorers.reward_model import question
from kinetics_serve.scorers.scorer import ScorerPrompt
from tests.arms import PRICE


def first_token(*candidates: tuple[str, float]) -> dict[str, object]:
    top = [{"token": token, "logprob": log(share)} for token, share in candidates]
    return {"message": {"content": candidates[0][0]}, "logprobs": {"content": [{"token": "?", "top_logprobs": top}]}}


def test_the_grade_is_the_one_that_the_judges_probabilities_expect() -> None:
    assert expected_grade(first_token(("8", 0.6), ("9", 0.2), ("the", 0.1), (" 8", 0.1))) == pytest.approx(
        (8 * 0.7 + 9 * 0.2) / 0.9
    )


def test_without_probabilities_the_digit_counts() -> None:
    assert expected_grade({"message": {"content": " 3"}, "logprobs": None}) == 3.0
    assert expected_grade({"message": {"content": "4"}, "logprobs": {"content": []}}) == 4.0


@pytest.mark.parametrize("content", ["0", "good", "", "10"])
def test_no_grade_is_an_error(content: str) -> None:
    with pytest.raises(ValueError, match="is not in list"):
        expected_grade({"message": {"content": content}})


def test_the_judge_reads_the_users_last_question_the_answer_and_the_criteria() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]},
        {"role": "assistant", "content": "hm"},
    ]
    assert question(messages) == "2 + 2?"
    (judged,) = judge_messages(messages, "four", "Be kind.")
    assert all(part in judged["content"] for part in ("2 + 2?", "four", "Be kind."))


@pytest.mark.parametrize("told", [-1, None, "3", 10**9])
def test_a_scorer_that_cannot_tell_its_prompt_is_charged_the_most_that_it_can_have_read(told: Any) -> None:
    prompt = ScorerPrompt(PRICE, 70, 1, 8192)
    assert prompt.settle(100, {"prompt_tokens": told}) == prompt.worst_case(100)
