"""Who runs, who waits, and who is refused."""

import asyncio
from collections import defaultdict
from random import Random
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fleet.clock import simulate
from kinetics_serve.requests.admission import PARTS, Admission, Capacity, DrainRate, FairQueue, Load, Overloaded, Ticket

costs = st.integers(1, PARTS)
events = st.lists(st.tuples(st.sampled_from(["offer", "leave", "finish"]), st.sampled_from("abc"), costs), max_size=60)


@given(events, st.integers(0, 10))
@settings(deadline=None)
def test_what_runs_fits_nobody_idles_and_each_tenants_requests_keep_their_order(
    events: list[tuple[str, str, int]], max_waiting: int
) -> None:
    queue = FairQueue(max_waiting)
    waiting: dict[str, list[Ticket]] = defaultdict(list)
    running: list[Ticket] = []
    for event, name, cost in events:
        if event == "offer":
            ticket = Ticket(name, cost)
            waiting[name].append(ticket)
            surplus = queue.offer(ticket)
            if surplus is not None:
                assert waiting[surplus.tenant].pop() is surplus
                assert len(waiting[surplus.tenant]) + 1 >= max(map(len, waiting.values()))  # nobody had more
        elif event == "leave" and waiting[name]:
            queue.leave(waiting[name].pop(cost % len(waiting[name])))
        elif event == "finish" and running:
            queue.finish(running.pop(cost % len(running)))
        for ticket in queue.admit():
            assert waiting[ticket.tenant].pop(0) is ticket
            running.append(ticket)
        assert queue.in_flight == sum(ticket.cost for ticket in running) <= PARTS
        assert queue.waiting == sum(map(len, waiting.values())) <= max_waiting
        assert all(ticket.running for ticket in running)
        head = queue.head
        assert head is None or queue.in_flight + head.cost > PARTS


@given(events)
@settings(deadline=None)
def test_the_next_is_of_the_tenant_that_got_least_of_those_who_wait(events: list[tuple[str, str, int]]) -> None:
    """By a plain look at all tenants, which takes too long where there are thousands."""
    queue = FairQueue(1000)
    turns: dict[str, int] = {}
    waiting: dict[str, list[Ticket]] = {}
    served = 0
    for event, name, cost in events:
        if event == "offer":
            if not waiting.setdefault(name, []):
                turns[name] = max(turns.get(name, 0), served)
            waiting[name].append(Ticket(name, cost))
            queue.offer(waiting[name][-1])
        elif event == "leave" and waiting.get(name):
            queue.leave(waiting[name].pop(cost % len(waiting[name])))
        else:
            for ticket in queue.admit():
                queue.finish(ticket)
                due = min((each for each in waiting if waiting[each]), key=lambda each: turns[each])
                assert waiting[due].pop(0) is ticket
                served = max(served, turns[due])
                turns[due] += ticket.cost
        due_now = [each for each in waiting if waiting[each]]
        first = min(due_now, key=lambda each: turns[each], default=None)
        assert queue.head is (waiting[first][0] if first is not None else None)
        assert queue.waiting_cost == sum(ticket.cost for each in waiting.values() for ticket in each)


def test_a_turn_among_thousands_of_tenants_does_not_look_at_all_of_them() -> None:
    class Tenants(dict[str, Any]):
        def values(self) -> NoReturn:
            raise AssertionError("every tenant was looked at")

    queue = FairQueue(10_000)
    queue._tenants = Tenants()
    for number in range(10_000):
        queue.offer(Ticket(f"tenant-{number}", PARTS))
    for number in range(100):
        (ticket,) = queue.admit()
        assert ticket.tenant == f"tenant-{number}"
        queue.finish(ticket)
    assert queue.offer(Ticket("tenant-0", PARTS)) is None
    assert queue.waiting == 9_901


@given(st.lists(st.tuples(st.sampled_from("abc"), costs), min_size=1, max_size=40))
@settings(deadline=None)
def test_everybody_gets_a_turn(requests: list[tuple[str, int]]) -> None:
    queue = FairQueue(len(requests))
    for name, cost in requests:
        queue.offer(Ticket(name, cost))
    served = 0
    while admitted := queue.admit():
        served += len(admitted)
        for ticket in admitted:
            queue.finish(ticket)
    assert served == len(requests)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(PARTS // 50, PARTS // 2), min_size=2), st.randoms())
@settings(deadline=None, max_examples=50)
def test_tenants_that_wait_get_the_same_but_for_one_request(sizes: dict[str, int], random: Random) -> None:
    """However large a tenant's requests are, and in whatever order they came."""
    queue = FairQueue(10**6)
    arrivals = [name for name, size in sizes.items() for _ in range(4 * PARTS // size)]
    random.shuffle(arrivals)
    for name in arrivals:
        queue.offer(Ticket(name, sizes[name]))
    got = dict.fromkeys(sizes, 0)
    running: list[Ticket] = []
    while max(got.values()) < 3 * PARTS:
        for ticket in queue.admit():
            got[ticket.tenant] += ticket.cost
            running.append(ticket)
        assert max(got.values()) - min(got.values()) <= 2 * max(sizes.values())
        queue.finish(running.pop(random.randrange(len(running))))


def test_one_tenants_flood_costs_another_nothing_but_its_share() -> None:
    queue = FairQueue(100)
    flood = [Ticket("flood", PARTS) for _ in range(101)]
    for ticket in flood[:100]:
        assert queue.offer(ticket) is None
        queue.admit()
    assert queue.offer(flood[100]) is None  # 100 wait, one runs
    queue.admit()
    assert queue.offer(Ticket("flood", 1)) is not None
    quiet = Ticket("quiet", PARTS)
    assert queue.offer(quiet) is flood[100]  # the flood makes room
    queue.finish(flood[0])
    assert queue.admit() == [quiet]


def test_a_tenant_that_was_away_does_not_get_what_it_never_asked_for() -> None:
    queue = FairQueue(1000)
    busy = [Ticket("busy", PARTS) for _ in range(50)]
    for ticket in busy[:40]:
        queue.offer(ticket)
        queue.finish(queue.admit()[0])
    for number in range(5):
        queue.offer(busy[40 + number])
        queue.offer(Ticket("back", PARTS))
    order = []
    while admitted := queue.admit():
        order += [ticket.tenant for ticket in admitted]
        queue.finish(admitted[0])
    assert all(order[:end].count("back") - order[:end].count("busy") in (-1, 0, 1) for end in range(len(order)))


@pytest.mark.parametrize(
    ("load", "share"),
    [
        (Load(64), 0.25),
        (Load(64, 0.0), 0.25),
        (Load(1, 5e12), 0.5),
        (Load(192, 5e12), 0.75),
        (Load(10**9, 1e30), 1.0),
    ],
)
def test_a_request_takes_what_is_scarcer(load: Load, share: float) -> None:
    assert Capacity(samples=256, eflops=1e13).cost(load) == share * PARTS


def test_the_drain_rate_is_that_of_busy_time() -> None:
    rate = DrainRate()
    for second in range(1, 101):
        rate.advance(float(second), busy=True, freed=PARTS // 10)
    assert rate.seconds_for(PARTS) == pytest.approx(10, abs=1)
    rate.advance(10_000.0, busy=False)
    assert rate.seconds_for(PARTS) == pytest.approx(10, abs=1)
    for second in range(10_001, 10_101):
        rate.advance(float(second), busy=True, freed=PARTS // 100)
    assert rate.seconds_for(PARTS) == pytest.approx(80, abs=25)


def test_requests_wait_for_their_turn_and_say_how_long() -> None:
    admission = Admission(Capacity(samples=2))
    running = most = 0

    async def request() -> float:
        nonlocal running, most
        async with admission.slot("a", Load(1)) as waited_s:
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.05)
            running -= 1
        return waited_s

    async def requests() -> list[float]:
        return await asyncio.gather(*(request() for _ in range(6)))

    assert sorted(simulate(requests())) == pytest.approx([0, 0, 0.05, 0.05, 0.1, 0.1])
    assert most == 2


def test_a_full_queue_says_when_there_may_be_room() -> None:
    changes: list[tuple[int, float]] = []
    admission = Admission(Capacity(samples=1, waiting=2), lambda waiting, load: changes.append((waiting, load)))

    async def request() -> None:
        async with admission.slot("a", Load(1)):
            await asyncio.sleep(1)

    async def scenario() -> None:
        for _ in range(3):
            async with admission.slot("a", Load(1)):
                await asyncio.sleep(0.3)
        tasks = [asyncio.create_task(request()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 requests wait") as raised:
            await request()
        assert raised.value.retry_after_s == 1  # three requests of 0.3 s each are ahead of it
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    simulate(scenario())
    assert max(waiting for waiting, _ in changes) == 2
    assert changes[-1] == (0, 0.0)


async def test_a_deadline_that_passes_in_the_queue_is_an_overload() -> None:
    admission = Admission(Capacity(samples=1))
    async with admission.slot("a", Load(1)):
        with pytest.raises(Overloaded, match=r"within its deadline of 0\.05 s"):
            async with admission.slot("a", Load(1), within_s=0.05):
                pass
    async with asyncio.timeout(60), admission.slot("a", Load(1)):
        pass


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 4), st.booleans()), max_size=30))
@settings(deadline=None, max_examples=30)
def test_requests_that_are_given_up_at_any_moment_leave_nothing_behind(plans: list[tuple[int, int, bool]]) -> None:
    async def scenario() -> None:
        last: list[tuple[int, float]] = []
        admission = Admission(Capacity(samples=4, waiting=5), lambda waiting, load: last.append((waiting, load)))

        async def request(steps: int, samples: int) -> None:
            async with admission.slot("ab"[samples % 2], Load(samples)):
                for _ in range(steps):
                    await asyncio.sleep(0)

        tasks = []
        for steps, samples, give_up in plans:
            tasks.append(asyncio.create_task(request(steps, samples)))
            await asyncio.sleep(0)
            if give_up:
                tasks[steps % len(tasks)].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if plans:
            assert last[-1] == (0, 0.0)
        async with asyncio.timeout(60), admission.slot("a", Load(4)):
            pass

    asyncio.run(scenario())
