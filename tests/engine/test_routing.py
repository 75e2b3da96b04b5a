"""Where requests go."""

from collections import Counter
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.engine.routing import BALANCE, NEAR, choose, places, prefix_of

SERVERS = [f"http://gpu-{number}:8000" for number in range(8)]
loads = st.dictionaries(st.sampled_from(SERVERS), st.integers(0, 200), min_size=1)
prefixes = st.binary(min_size=16, max_size=16)


@given(loads, st.none() | prefixes)
def test_no_server_gets_much_more_than_the_others(loads: dict[str, int], prefix: bytes | None) -> None:
    chosen = choose(loads, prefix)
    assert loads[chosen] + 1 <= ceil(BALANCE * (sum(loads.values()) + 1) / len(loads))


@given(loads)
def test_without_a_prefix_the_least_busy_server_is_chosen(loads: dict[str, int]) -> None:
    assert loads[choose(loads, None)] == min(loads.values())


@given(st.lists(st.sampled_from(SERVERS), min_size=2, unique=True), prefixes)
def test_a_prefix_stays_with_its_server_and_only_moves_when_that_goes(servers: list[str], prefix: bytes) -> None:
    home = choose(dict.fromkeys(servers, 0), prefix)
    assert choose(dict.fromkeys(reversed(servers), 3), prefix) == home
    for gone in servers:
        rest = {server: 0 for server in servers if server != gone}
        assert (choose(rest, prefix) == home) == (gone != home)


@given(st.integers(2, 8), prefixes)
def test_requests_of_one_prefix_spread_only_as_far_as_the_balance_asks(count: int, prefix: bytes) -> None:
    loads = dict.fromkeys(SERVERS[:count], 0)
    for _ in range(10 * count):
        loads[choose(loads, prefix)] += 1
    assert max(loads.values()) <= ceil(BALANCE * 10)


def test_prefixes_spread_over_the_servers() -> None:
    homes = Counter(choose(dict.fromkeys(SERVERS, 0), number.to_bytes(16, "big")) for number in range(800))
    assert set(homes) == set(SERVERS)
    assert min(homes.values()) > 50


@given(loads, prefixes, st.sets(st.sampled_from(SERVERS)))
def test_a_prefix_goes_to_a_server_where_it_may_be_cached_or_where_least_is_to_do(
    loads: dict[str, int], prefix: bytes, cached: set[str]
) -> None:
    near = cached & loads.keys()
    chosen = choose(loads, prefix, near)
    limit = ceil(BALANCE * (sum(loads.values()) + 1) / len(loads))
    if any(loads[server] < limit for server in near):
        assert chosen in near
        assert loads[chosen] < limit
    else:
        assert loads[chosen] == min(loads.values())


@given(prefixes, st.integers(1, 20_000))
def test_a_prefix_has_few_places_and_a_server_more_takes_none_but_its_own(prefix: bytes, count: int) -> None:
    before, after = places(prefix, count), places(prefix, count + 1)
    assert 1 <= len(before) == len(set(before)) <= NEAR
    assert all(0 <= place < count for place in before)
    assert set(after) <= {*before, count}


def test_the_places_of_prefixes_are_spread_evenly() -> None:
    firsts = Counter(places(number.to_bytes(16, "big"), 100)[0] for number in range(20_000))
    assert len(firsts) == 100
    assert max(firsts.values()) < 1.35 * 200
    assert min(firsts.values()) > 0.65 * 200


SYSTEM = {"role": "system", "content": "Be short."}
FIRST = {"role": "user", "content": "What is a ship?"}


def test_the_turns_of_a_conversation_share_a_prefix_and_others_do_not() -> None:
    beginning = prefix_of({"messages": [SYSTEM, FIRST]})
    answered = [SYSTEM, FIRST, {"role": "assistant", "content": "A vessel."}, {"role": "user", "content": "Of wood?"}]
    assert prefix_of({"messages": answered, "temperature": 1}) == beginning
    assert prefix_of({"messages": [SYSTEM, {"role": "user", "content": "What is a car?"}]}) != beginning
    assert prefix_of({"messages": [SYSTEM, FIRST], "cache_salt": "x"}) != beginning


def test_prompts_with_the_same_beginning_share_a_prefix() -> None:
    long = "word " * 1000
    assert prefix_of({"prompt": long + "a"}) == prefix_of({"prompt": [long + "b"]}) != prefix_of({"prompt": "word"})
    assert prefix_of({"prompt": [1] * 600}) == prefix_of({"prompt": [1] * 700}) != prefix_of({"prompt": [2]})


ODD = st.sampled_from([None, True, 7, 0.5, "", "text", "\ud800", [], [None], ["a"], [[1]], {}, {"role": "user"}])


@given(st.dictionaries(st.sampled_from(["messages", "input", "prompt", "tools"]), ODD | st.lists(ODD, max_size=3)))
def test_any_body_has_a_prefix_or_none(body: dict[str, object]) -> None:
    prefix = prefix_of(body)
    assert prefix is None or len(prefix) == 16
