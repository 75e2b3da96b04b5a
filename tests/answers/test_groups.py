import asyncio
import random
import time
from collections.abc import AsyncIterator
from unittest import mock

import pytest

from kinetics_serve.answers.algebra import TIME_LIMIT_S, MathPool
from kinetics_serve.answers.groups import AnswerGroups

ANSWERS = ["1/2", "0.5", r"\frac12", "Paris", "paris.", r"\frac{2}{3}", "x+y", "2/3", "y+x", "50%", "(B)", "B"]
PATIENCE_S = 30
"""Far less than what has no limit takes, and enough for a busy machine."""

HOSTILE = [r"\binom{10^9}{5\cdot 10^8}", r"(x+y+z+w)^{60}", r"\sqrt[7]{\sqrt[5]{2}+\sqrt[3]{3}}"]


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[MathPool]:
    pool = MathPool()
    await pool.start()
    yield pool
    pool.close()


async def test_equal_answers_share_the_label_of_the_first(pool: MathPool) -> None:
    groups = AnswerGroups("auto", pool)
    labels = [await groups.label(answer) for answer in ANSWERS]
    third = r"\frac{2}{3}"
    assert labels == ["1/2"] * 3 + ["Paris"] * 2 + [third, "x+y", third, "x+y", "1/2", "(B)", "(B)"]
    assert [groups.domain(label) for label in ("1/2", "Paris", "(B)", "7")] == ["math", "text", "choice", None]


async def test_the_groups_are_the_same_in_whatever_order_answers_come(pool: MathPool) -> None:
    async def partition(answers: list[str]) -> set[frozenset[str]]:
        groups = AnswerGroups("auto", pool)
        labels = await asyncio.gather(*map(groups.label, answers))
        return {frozenset(a for a, label in zip(answers, labels, strict=True) if label == each) for each in labels}

    generator = random.Random(0)
    orders = [generator.sample(ANSWERS, len(ANSWERS)) for _ in range(5)]
    assert len({frozenset(await partition(order)) for order in orders}) == 1


async def test_labels_that_are_there_already_are_joined(pool: MathPool) -> None:
    groups = AnswerGroups("auto", pool, ["0.50", "Rome"])
    assert await asyncio.gather(*map(groups.label, ["1/2", "rome", "7", r"\frac12"])) == ["0.50", "Rome", "7", "0.50"]


@pytest.mark.parametrize(
    "answer", ["9^{9^{9^9}}", "(" * 200 + "1" + ")" * 200, "{" * 8000, HOSTILE[0], "9" * 400 + "!"]
)
async def test_a_hostile_answer_costs_its_time_limit_at_most(pool: MathPool, answer: str) -> None:
    groups = AnswerGroups("auto", pool)
    started = time.monotonic()
    assert await groups.label(answer) == answer
    assert await groups.label(f" {answer}") == answer
    assert time.monotonic() - started < PATIENCE_S


async def test_many_hostile_answers_cost_their_request_no_more_than_a_few(pool: MathPool) -> None:
    groups = AnswerGroups("auto", pool)
    started = time.monotonic()
    for number in range(30):
        await groups.label(rf"(x+y+z+w)^{{{60 + number}}}")
    assert time.monotonic() - started < PATIENCE_S < 30 * TIME_LIMIT_S


async def test_a_hostile_answer_holds_no_other_request_up(pool: MathPool) -> None:
    hostile = [asyncio.create_task(AnswerGroups("auto", pool).label(f"{answer}+1")) for answer in HOSTILE]
    await asyncio.sleep(0.05)
    assert await AnswerGroups("auto", pool).label(r"\frac{3}{7}") == r"\frac{3}{7}"
    assert not any(task.done() for task in hostile)
    await asyncio.gather(*hostile)


async def test_an_answer_is_read_once(pool: MathPool) -> None:
    answer = r"\sqrt{2} + \sqrt{3} + \sqrt{5}"
    key = await pool.key(answer, "auto")
    with mock.patch.object(pool, "_run") as run:
        assert await pool.key(answer, "auto") == key
    run.assert_not_called()
