import pytest

from kinetics_serve.cost import DENSE, KVPolicy


def test_the_default_policy_is_dense() -> None:
    assert KVPolicy() == DENSE
    assert DENSE.budget is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": 0}, "KV budget"),
        ({"budget": -5}, "KV budget"),
        ({"page_size": 0}, "page_size"),
        ({"summary_vectors": -1.0}, "summary_vectors"),
        ({"summary_vectors": float("nan")}, "summary_vectors"),
        ({"summary_vectors": float("inf")}, "summary_vectors"),
    ],
)
def test_impossible_policies_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KVPolicy(**wrong)  # type: ignore[arg-type]
