import pytest

from sparse_backend.config import ConfigError, SparseAttentionConfig, from_additional_config


@pytest.mark.parametrize("given", [None, {}, {"other": 1}, {"sparse_attention": {"enabled": False}}])
def test_sparse_attention_is_off_unless_asked_for(given: object) -> None:
    assert from_additional_config(given) is None


def test_fields_reach_the_config() -> None:
    config = from_additional_config({"sparse_attention": {"kv_budget": 512, "selector": "quest"}})
    assert config == SparseAttentionConfig(kv_budget=512, selector="quest")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"budget": 512}, "the fields are kv_budget"),
        ({"kv_budget": -1}, "whole number"),
        ({"kv_budget": 512.5}, "whole number"),
        ({"kv_budget": True}, "whole number"),
        ({"kv_budget": 64}, "raise it, or use 0"),
        ({"kv_budget": 2**31}, "from 0 to 268435456"),
        ({"min_context": 2**31}, "from 0 to 268435456"),
        ({"selector": "best"}, "block_mean, exact, low_rank, quest"),
        ({"page_size": 12}, "choose one of 8"),
        ({"local_tokens": 0}, "keep at least 1"),
        ({"enabled": "yes"}, "true or false"),
        (512, "give an object"),
    ],
)
def test_refusals_say_what_to_change(given: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        from_additional_config({"sparse_attention": given})


def test_the_smallest_budget_named_is_accepted() -> None:
    smallest = SparseAttentionConfig(sink_tokens=5, local_tokens=70).min_budget
    assert SparseAttentionConfig(sink_tokens=5, local_tokens=70, kv_budget=smallest).kv_budget == smallest
    with pytest.raises(ConfigError):
        SparseAttentionConfig(sink_tokens=5, local_tokens=70, kv_budget=smallest - 1)
