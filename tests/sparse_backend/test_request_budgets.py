from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("vllm")

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate
from vllm.v1.sample.logits_processor.interface import MoveDirectionality

from sparse_backend.backends.engine import engine_of
from sparse_backend.config import SparseAttentionConfig
from sparse_backend.request_budgets import RequestBudgets, batch_budgets
from sparse_backend.selection import LowRank

CONFIG = SparseAttentionConfig(kv_budget=1024)


def new_config() -> Any:
    """vLLM's, of an engine with a KV budget of 1,024."""
    return SimpleNamespace(
        additional_config={"sparse_attention": {"kv_budget": 1024}}, compilation_config=SimpleNamespace()
    )


def engine() -> tuple[Any, RequestBudgets]:
    """What budgets an engine's metadata builders see, and the processor that keeps them."""
    vllm_config = new_config()
    processor = RequestBudgets(vllm_config, torch.device("cpu"), False)
    return engine_of(vllm_config).budgets, processor  # type: ignore[union-attr]


def test_budgets_are_followed_where_the_processor_is_installed_twice() -> None:
    vllm_config = new_config()
    processors = [RequestBudgets(vllm_config, torch.device("cpu"), False) for _ in range(2)]
    added: list[Any] = [(0, params(512), None, []), (1, params(0), None, [])]
    moved = [(1, 0, MoveDirectionality.UNIDIRECTIONAL)]  # the first has left
    for update in (
        BatchUpdate(batch_size=2, removed=[], added=added, moved=[]),
        BatchUpdate(batch_size=1, removed=[], added=[], moved=moved),
    ):
        for processor in processors:
            processor.update_state(update)
    assert batch_budgets(engine_of(vllm_config).budgets, CONFIG, 1).tolist() == [0]  # type: ignore[union-attr]


def params(budget: object = None) -> SamplingParams:
    return SamplingParams(extra_args=None if budget is None else {"kv_budget": budget})


@pytest.mark.parametrize("budget", [-1, 1.5, "512", True, [512]])
def test_a_bad_budget_is_refused(budget: object) -> None:
    with pytest.raises(VLLMValidationError, match="whole number of tokens"):
        RequestBudgets.validate_params(params(budget))


@pytest.mark.parametrize("budget", [None, 0, 512])
def test_a_good_budget_is_accepted(budget: object) -> None:
    RequestBudgets.validate_params(params(budget))


def test_requests_without_a_budget_get_the_engine_s_and_small_ones_the_smallest_possible() -> None:
    given, budgets = engine()
    added: list[Any] = [
        (0, params(), None, []),
        (1, params(0), None, []),
        (2, params(1), None, []),
        (3, params(512), None, []),
    ]
    budgets.update_state(BatchUpdate(batch_size=4, removed=[], added=added, moved=[]))
    assert batch_budgets(given, CONFIG, 4).tolist() == [1024, 0, CONFIG.min_budget, 512]


@pytest.mark.parametrize("budget", [2**31 - 1, 2**31, 2**63])
def test_a_budget_that_no_context_fills_is_one_that_kernels_can_count(budget: int) -> None:
    """Whatever the selector and the layer make of it: an error here would end the engine."""
    given, processor = engine()
    processor.add_request(0, params(budget))
    (kept,) = batch_budgets(given, CONFIG, 1).tolist()
    selector = LowRank()
    first, rest = selector.layer_budgets(kept, 64, True)
    assert 10**8 < rest < kept < selector.key_tokens(first, 8) < 2**31


@settings(deadline=None)
@given(st.data())
def test_budgets_follow_their_requests_through_the_batch(data: st.DataObject) -> None:
    given_budgets, processor = engine()
    rows: list[int] = []  # the budget of the request in each row; 1024 where it names none
    for _ in range(data.draw(st.integers(1, 8))):
        removed = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows)))) if rows else []
        slots: list[int | None] = [None if i in removed else b for i, b in enumerate(rows)]
        added: list[Any] = []
        for budget in data.draw(st.lists(st.sampled_from([None, 0, 256, 512, 777]), max_size=4)):
            free = [i for i, b in enumerate(slots) if b is None]
            row = free[0] if free else len(slots)
            slots[row:] = [1024 if budget is None else budget, *slots[row + 1 :]]
            added.append((row, params(budget), None, []))
        moved = []
        while None in slots:  # the batch is condensed: the last request moves into the first gap
            if slots[-1] is None:
                slots.pop()
                continue
            gap = slots.index(None)
            moved.append((len(slots) - 1, gap, MoveDirectionality.UNIDIRECTIONAL))
            slots[gap] = slots.pop()
        if len(slots) > 1 and data.draw(st.booleans()):
            a, b = data.draw(st.permutations(range(len(slots))))[:2]
            slots[a], slots[b] = slots[b], slots[a]
            moved.append((a, b, MoveDirectionality.SWAP))
        rows = [b for b in slots if b is not None]
        filled = [row for row, *_ in added]
        update = BatchUpdate(
            batch_size=len(rows), removed=[r for r in removed if r not in filled], added=added, moved=moved
        )
        processor.update_state(update)
        assert batch_budgets(given_budgets, CONFIG, len(rows)).tolist() == rows


def test_requests_in_their_prompt_have_no_budget_whatever_they_ask_for() -> None:
    """vLLM's first model runner tells it of padding too, its second one of real requests alone."""
    given = {0: 512, 1: 512}
    for prefilling in ([True, False, True], [True, False, True, False, False]):
        budgets = batch_budgets(given, CONFIG, 4, prefilling=torch.tensor(prefilling))
        assert budgets.tolist() == [0, 512, 0, 1024]
    assert batch_budgets(given, CONFIG, 4, slots=[1, 0], prefilling=torch.tensor([False, True])).tolist()[:2] == [
        512,
        0,
    ]
