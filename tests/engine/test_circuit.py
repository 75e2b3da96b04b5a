"""When a server that fails is left alone, and for how long."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.engine.circuit import FAILURES_TO_OPEN, FIRST_COOL_DOWN_S, LONGEST_COOL_DOWN_S, Circuit


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    circuit = Circuit()
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            circuit.failed(0, lost=False)
        assert not circuit.is_open(0)
        circuit.succeeded()
    for _ in range(FAILURES_TO_OPEN):
        circuit.failed(0, lost=False)
    assert circuit.is_open(0)


def test_a_lost_server_is_left_alone_at_once_and_all_its_failures_count_once() -> None:
    circuit = Circuit()
    for _ in range(100):
        circuit.failed(10, lost=True)
    assert circuit.is_open(10 + 0.99 * FIRST_COOL_DOWN_S)
    assert not circuit.is_open(10 + FIRST_COOL_DOWN_S)
    assert circuit.on_trial(10 + FIRST_COOL_DOWN_S)


def test_each_trial_that_fails_doubles_the_cool_down_and_one_that_succeeds_ends_it() -> None:
    circuit, now = Circuit(), 0.0
    opened: list[float] = []
    for _ in range(10):
        circuit.failed(now, lost=not opened)
        start = now
        while circuit.is_open(now):
            now += 0.5
        opened.append(now - start)
    assert opened[0] == FIRST_COOL_DOWN_S
    assert all(later == min(2 * earlier, LONGEST_COOL_DOWN_S) for earlier, later in pairwise(opened))
    circuit.succeeded()
    assert not circuit.on_trial(now)
    circuit.failed(now, lost=True)
    assert not circuit.is_open(now + FIRST_COOL_DOWN_S)


@given(st.lists(st.tuples(st.floats(0, 10), st.sampled_from(["lost", "failed", "succeeded"]))))
def test_it_always_closes_again_within_the_longest_cool_down(events: list[tuple[float, str]]) -> None:
    circuit, now = Circuit(), 0.0
    for pause, event in events:
        now += pause
        if event == "succeeded":
            circuit.succeeded()
        else:
            circuit.failed(now, lost=event == "lost")
        assert not circuit.is_open(now + LONGEST_COOL_DOWN_S)
        assert not (circuit.is_open(now) and circuit.on_trial(now))
