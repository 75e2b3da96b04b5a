"""Front-ends and databases that go away while requests run."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.outbox_file import OutboxFile
from tests.e2e.conftest import until
from tests.fake_vllm import FakeVllm
from tests.ledger.conftest import emptied, noted
from tests.ledger.postgres import running_postgres
from tests.ledger.server import QUESTION, VOTE, bearer, check_error, front_end


async def test_a_killed_front_end_leaves_an_exact_ledger_to_the_other(
    url: str, fake: FakeVllm, folder: Path, tmp_path: Path
) -> None:
    """kill -9 in the middle of a vote: what was last noted is charged, the rest of the quota is free again."""
    fake.token_s, fake.tokens = 0.05, 1000
    lease_s = 12
    ledger = Ledger(Database(url), clock=lambda: time.time() + lease_s)  # of one who comes after that
    with (
        front_end(fake, url, folder, tmp_path / "log-1", "--lease-s", str(lease_s)) as first,
        front_end(fake, url, folder, tmp_path / "log-2", "--lease-s", str(lease_s)) as second,
    ):
        key = second.key("acme", concurrency=1)
        body = QUESTION | {"max_tokens": 1000, "kinetics": VOTE}
        async with httpx.AsyncClient(timeout=60) as client:
            path = f"{first.url}/v1/chat/completions"
            request = asyncio.create_task(client.post(path, json=body, headers=bearer(key)))
            async with asyncio.timeout(60):
                while not await noted(ledger):
                    await asyncio.sleep(0.1)
            assert second.usage(key)["running_requests"] == 1
            check_error(second.ask(key, QUESTION), 429, "quota_exceeded", "1 of its 1 requests")
            first.process.kill()
            await asyncio.gather(request, return_exceptions=True)
        await ledger.expire()
        await ledger.close()
        usage = second.usage(key)
        assert (usage["running_requests"], usage["reserved_eflops"]) == (0, 0)
        (row,) = usage["data"]
        assert row["requests"] == 1
        assert 0 < row["eflops"] == usage["window_spent_eflops"]
        fake.token_s, fake.tokens = 0, 8
        assert second.ask(key, QUESTION).status_code == 200
        assert second.spent(key)["pass_through"] == second.eflops(8)


async def test_without_its_database_a_front_end_finishes_what_runs_and_starts_nothing(
    fake: FakeVllm, folder: Path, tmp_path: Path
) -> None:
    fake.tokens = 60
    outbox = OutboxFile(tmp_path / "outbox")
    with ExitStack() as database:
        url = database.enter_context(running_postgres())
        await emptied(url)
        with front_end(fake, url, folder, tmp_path / "log", "--outbox", str(outbox.path)) as server:
            key = server.key("acme")
            async with httpx.AsyncClient(timeout=60) as client:
                path = f"{server.url}/v1/chat/completions"
                with fake.holding():
                    running = asyncio.create_task(client.post(path, json=QUESTION, headers=bearer(key)))
                    await until(lambda: bool(fake.sent("/v1/chat/completions")), 60)
                    await asyncio.to_thread(database.close)
                    refused = await client.post(path, json=QUESTION, headers=bearer(key))
                check_error(refused, 503, "ledger_unavailable", "try again")
                assert int(refused.headers["retry-after"]) > 0
                assert (await running).status_code == 200
            assert httpx.get(f"{server.url}/ready").status_code == 200
            assert [bill.spent for bill in outbox.waiting(10)] == [server.eflops(60)]
            await until(lambda: "bills wait in the outbox" in server.log.read_text(), 60)
    outbox.close()
