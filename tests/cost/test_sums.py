from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.cost.sums import sum_capped, sum_positions_in_chunks, sum_whole_pages

tokens = st.integers(0, 300)


@given(first=tokens, last=st.integers(-3, 300), cap=st.none() | st.integers(0, 300))
def test_sum_capped_is_the_loop(first: int, last: int, cap: int | None) -> None:
    naive = sum(i if cap is None else min(i, cap) for i in range(first, last + 1))
    assert sum_capped(first, last, cap) == naive


@given(first=st.integers(1, 300), last=st.integers(-3, 300), chunk=st.integers(1, 70))
def test_sum_positions_in_chunks_is_the_loop(first: int, last: int, chunk: int) -> None:
    assert sum_positions_in_chunks(first, last, chunk) == sum((i - 1) % chunk + 1 for i in range(first, last + 1))


@given(first=tokens, last=st.integers(-3, 300), page_size=st.integers(1, 70))
def test_sum_whole_pages_is_the_loop(first: int, last: int, page_size: int) -> None:
    assert sum_whole_pages(first, last, page_size) == sum(i // page_size for i in range(first, last + 1))


def test_long_sums_are_exact_ints() -> None:
    last = 10**12 + 1
    assert sum_capped(1, last, None) == last * (last + 1) // 2
    assert sum_whole_pages(0, 10**12 - 1, 10**6) == 10**6 * (10**6 * (10**6 - 1) // 2)
