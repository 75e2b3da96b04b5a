import time
from collections.abc import AsyncIterator

import pytest

from kinetics_serve.answers.algebra import MathPool
from kinetics_serve.answers.groups import AnswerGroups


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[MathPool]:
    pool = MathPool()
    yield pool
    pool.close()


async def test_equal_answers_share_the_label_of_the_first(pool: MathPool) -> None:
    groups = AnswerGroups("auto", pool.equal)
    answers = ["1/2", "0.5", r"\frac12", "Paris", "paris.", r"\frac{2}{3}", "x+y", "2/3"]
    labels = [await groups.label(answer) for answer in answers]
    assert labels == ["1/2", "1/2", "1/2", "Paris", "Paris", r"\frac{2}{3}", "x+y", r"\frac{2}{3}"]


async def test_an_answer_that_would_compute_forever_is_cut_off_once(pool: MathPool) -> None:
    await pool.equal(r"\sqrt{4}", "2.0001")  # starts the worker
    groups = AnswerGroups("math", pool.equal)
    await groups.label(r"\sqrt{2}")
    start = time.monotonic()
    bomb = "2^{2^{2^{2^{2^{2}}}}}"
    assert await groups.label(bomb) == bomb
    assert await groups.label(r"\sqrt{3}") == r"\sqrt{3}"
    assert time.monotonic() - start < 4 * pool.time_limit_s


async def test_the_worker_is_replaced_after_a_kill(pool: MathPool) -> None:
    assert await pool.equal("2^{2^{2^{2^{2^{2}}}}}", r"\sqrt{2}") is None
    assert await pool.equal(r"\frac12", "0.5") is True
