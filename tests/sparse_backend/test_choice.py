"""vLLM's choice of attention backends, as the plugin watches it."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")

import torch

from sparse_backend.backends import choice
from sparse_backend.backends.choice import watched
from sparse_backend.config import ConfigError
from sparse_backend.engine_info import SAME_IN_ALL_STAGES, merged


class Stock:
    @staticmethod
    def get_name() -> str:
        return "FLEX_ATTENTION"


class Sparse(Stock):
    engine = object()


def config(**model: Any) -> Any:
    return SimpleNamespace(
        additional_config={"sparse_attention": {"kv_budget": 256}},
        compilation_config=SimpleNamespace(),
        model_config=SimpleNamespace(
            **{"use_mla": False, "is_encoder_decoder": False, "dtype": torch.bfloat16, **model}
        ),
        cache_config=SimpleNamespace(cache_dtype="auto", user_specified_block_size=False, kv_offloading_size=None),
        parallel_config=SimpleNamespace(
            pipeline_parallel_size=1, decode_context_parallel_size=1, prefill_context_parallel_size=1
        ),
        kv_transfer_config=None,
        speculative_config=None,
    )


@pytest.fixture
def choosing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What vLLM's selector answers for an engine, and the warnings of that."""
    warnings: list[str] = []
    monkeypatch.setattr(choice.logger, "warning_once", lambda text, *values: warnings.append(text % values))

    def chosen(vllm_config: Any, backend: type[Any]) -> tuple[type[Any], list[str]]:
        monkeypatch.setattr(choice, "get_current_vllm_config_or_none", lambda: vllm_config)
        warnings.clear()
        return watched(cache(lambda: backend))(), list(warnings)

    return chosen


def test_backends_that_stay_dense_are_named_at_start(choosing: Any) -> None:
    backend, warnings = choosing(config(), Stock)
    assert backend is Stock
    assert "FLEX_ATTENTION, which vLLM chose, stay dense" in warnings[0]
    assert choosing(config(), Sparse) == (Sparse, [])


def test_engines_that_do_not_ask_for_sparse_attention_hear_nothing(choosing: Any) -> None:
    stock = config()
    stock.additional_config = {}
    assert choosing(stock, Stock) == (Stock, [])
    assert choosing(None, Stock) == (Stock, [])


def test_models_whose_backends_are_never_ours_are_refused_too(choosing: Any) -> None:
    with pytest.raises(ConfigError, match="does not support MLA models: remove sparse_attention"):
        choosing(config(use_mla=True), Stock)


def test_a_second_engine_is_asked_for_anew() -> None:
    answers = iter([Sparse, Stock])
    ask = watched(watched(cache(lambda: next(answers))))
    assert [ask(), ask()] == [Sparse, Stock]


def test_layers_on_another_backend_are_among_the_dense_ones_that_an_engine_names() -> None:
    from vllm.v1.attention.backend import AttentionType

    from sparse_backend.backends.layers import dense_reason

    layer: Any = SimpleNamespace(
        attn_type=AttentionType.DECODER, sliding_window=None, head_size=64, impl=SimpleNamespace()
    )
    reason = dense_reason(layer)
    assert reason == "another attention backend"
    facts = {**dict.fromkeys(SAME_IN_ALL_STAGES), "summary_bytes": 1, "sparse": [0], "dense": {reason: [1]}}
    assert merged([facts])["dense_layers"] == "another attention backend: 1"
