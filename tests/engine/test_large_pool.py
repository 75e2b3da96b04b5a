"""Thousands of servers: a request looks at few of them, and each is checked less often."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from unittest import mock

import aiohttp
import pytest

from benchmarks.fleet.clock import simulate
from kinetics_serve.engine import pool as module
from kinetics_serve.engine.errors import EngineUnavailable
from kinetics_serve.engine.info import EngineInfo
from kinetics_serve.engine.members import Members
from kinetics_serve.engine.pool import ModelNotFound, Pool
from kinetics_serve.engine.routing import NEAR
from kinetics_serve.engine.upstream import ModelCard, Upstream
from tests.arms import PAPER_B200

MANY = 1000


class Stub(Upstream):
    """A server that only says that it is there."""

    def __init__(self, number: int, *models: str) -> None:
        super().__init__(f"http://gpu-{number}:8000", cast(aiohttp.ClientSession, None))
        self.serves = models or ("m",)
        self.up = True
        self.checks = 0

    async def check_health(self) -> None:
        self.checks += 1
        if not self.up:
            raise EngineUnavailable("down")

    async def models(self) -> list[ModelCard]:
        return [ModelCard(name, "/nowhere", None, {}) for name in self.serves]

    async def info(self) -> EngineInfo:
        return EngineInfo()


async def checked(stubs: list[Stub]) -> Pool:
    pool = Pool(stubs, PAPER_B200)
    for stub in stubs:
        await pool.check(stub)
    return pool


@contextmanager
def looks(pool: Pool) -> Iterator[Counter[Upstream]]:
    """The servers that are looked at meanwhile."""
    seen: Counter[Upstream] = Counter()
    serving = pool._serving

    def looked(upstream: Upstream) -> object:
        seen[upstream] += 1
        return serving(upstream)

    with mock.patch.object(pool, "_serving", looked):
        yield seen


def body(number: int) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}


async def test_a_request_looks_at_few_of_many_servers() -> None:
    pool = await checked([Stub(number) for number in range(MANY)])
    with looks(pool) as seen:
        for number in range(10):
            pool.pick("m", body(number))
            pool.pick("m")
            pool.pick(None, body(number))
            pool.models()
    assert seen.total() < 40 * (2 * NEAR + 3)


async def test_a_conversation_stays_with_its_server_while_others_come_and_go() -> None:
    stubs = [Stub(number) for number in range(MANY)]
    pool = await checked(stubs)
    homes = {number: pool.pick("m", body(number))[0] for number in range(200)}
    assert len(set(homes.values())) > 150
    gone = stubs[::10]
    for stub in gone:
        stub.up = False
        await pool.check(stub)
    moved = [number for number, home in homes.items() if pool.pick("m", body(number))[0] is not home]
    assert moved == [number for number, home in homes.items() if home in gone]
    assert len({pool.pick("m", body(number))[0] for number in moved}) > len(moved) / 2
    for stub in gone:
        stub.up = True
        await pool.check(stub)
    assert {number: pool.pick("m", body(number))[0] for number in homes} == homes


async def test_what_everybody_asks_is_spread_over_more_servers_than_keep_it() -> None:
    pool = await checked([Stub(number) for number in range(MANY)])
    for _ in range(4 * MANY):
        pool.pick("m", body(0))[0].outstanding += 1
    loads = [upstream.outstanding for upstream in pool.upstreams]
    assert max(loads) < 4 * 4


async def test_without_a_prefix_the_load_is_even() -> None:
    pool = await checked([Stub(number) for number in range(MANY)])
    for _ in range(4 * MANY):
        pool.pick("m")[0].outstanding += 1
    assert max(upstream.outstanding for upstream in pool.upstreams) <= 2 * 4


async def test_the_last_of_many_servers_that_is_up_is_found() -> None:
    stubs = [Stub(number) for number in range(MANY)]
    pool = await checked(stubs)
    for stub in stubs[1:]:
        stub.up = False
        await pool.check(stub)
    assert all(pool.pick("m", body(number))[0] is stubs[0] for number in range(20))
    with pytest.raises(EngineUnavailable, match="no other engine is up"):
        pool.pick("m", body(0), without={stubs[0]})
    stubs[0].up = False
    await pool.check(stubs[0])
    with pytest.raises(EngineUnavailable, match="no engine is up"):
        pool.pick("m", body(0))


async def test_a_model_of_few_servers_is_found_among_many_of_others() -> None:
    rare = Stub(MANY, "rare")
    pool = await checked([*(Stub(number) for number in range(MANY)), rare])
    assert [model.name for model in pool.models()] == ["m", "rare"]
    assert pool.pick("rare", body(0))[0] is rare
    with pytest.raises(ModelNotFound, match="'other' is not served here; there is 'm', 'rare'"):
        pool.pick("other")


async def test_one_server_at_a_time_is_tried_again_where_others_are_up() -> None:
    pool = await checked([Stub(number) for number in range(MANY)])
    home = pool.pick("m", body(0))[0]
    home.circuit.failed(-100.0, lost=True)  # it has rested since, and is on trial
    await pool.check(home)
    assert pool.pick("m", body(0))[0] is home
    home.outstanding = 1
    assert pool.pick("m", body(0))[0] is not home


def test_members_keep_the_configurations_order_and_their_place_while_they_are_listed() -> None:
    stubs = [Stub(number) for number in range(4)]
    members = Members(stubs)
    for stub in (stubs[2], stubs[0], stubs[3]):
        members.listed(stub, ["a", "b"])
    assert list(members.of("a")) == [stubs[0], stubs[2], stubs[3]]
    members.listed(stubs[0], ["b"])
    members.listed(stubs[2], ["a"])
    assert (list(members.of("a")), list(members.of("b"))) == ([stubs[2], stubs[3]], [stubs[0], stubs[3]])
    members.listed(stubs[2], [])
    members.listed(stubs[3], [])
    assert (list(members.of("a")), len(list(members))) == ([], 1)


@pytest.mark.parametrize(("count", "least", "most"), [(3, 55, 62), (2 * module.CHECKS_PER_S, 28, 32)])
def test_servers_are_checked_every_second_but_not_more_than_the_front_end_can_bear(
    count: int, least: int, most: int
) -> None:
    stubs = [Stub(number) for number in range(count)]

    async def a_minute() -> None:
        watching = asyncio.create_task(Pool(stubs, PAPER_B200).watch())
        await asyncio.sleep(60)
        watching.cancel()

    simulate(a_minute())
    assert all(least <= stub.checks <= most for stub in stubs), Counter(stub.checks for stub in stubs)


def test_a_server_that_is_silent_holds_up_no_checks_of_the_others() -> None:
    class Silent(Stub):
        async def check_health(self) -> None:
            await asyncio.sleep(4)
            raise EngineUnavailable("silent")

    stubs = [Stub(number) for number in range(300)]

    async def ten_seconds() -> bool:
        pool = Pool([*(Silent(MANY + number) for number in range(10)), *stubs], PAPER_B200)
        watching = asyncio.create_task(pool.watch())
        await asyncio.sleep(10)
        watching.cancel()
        return pool.ready

    assert simulate(ten_seconds())
    assert min(stub.checks for stub in stubs) >= 5
