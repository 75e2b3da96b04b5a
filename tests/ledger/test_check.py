"""The ledger's books, checked."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import text, update

from kinetics_serve.ledger import check, tables
from kinetics_serve.ledger.check import Books
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.outbox_file import Change, OutboxFile
from kinetics_serve.ledger.settlement import Settlement
from tests.ledger.conftest import Clock, settle, tenant
from tests.ledger.server import run_command

A, B, C, D = (letter * 32 for letter in "abcd")


async def checked(ledger: Ledger) -> Books:
    async with ledger.database.read() as connection:
        return await check.check(connection, ledger.now)


async def busy(ledger: Ledger, clock: Clock) -> None:
    """One request settled, one late, one expired, one that runs."""
    owner = await tenant(ledger)
    for id in (A, B, C):
        await ledger.reserve(id, owner, "m", "single", 100)
    await settle(ledger, A, owner, 10)
    for id in (B, C):
        await ledger.renew(id, 30)
    clock.now += ledger.lease_s
    await ledger.expire()
    await settle(ledger, B, owner, 20)
    await ledger.reserve(D, owner, "m", "single", 100)


async def test_books_in_which_all_is_right_agree(ledger: Ledger, clock: Clock) -> None:
    await busy(ledger, clock)
    books = await checked(ledger)
    assert books.differences == ()
    assert (books.settled, books.expired, books.running) == ((2, 30), (1, 30), (1, 100))


async def test_what_is_booked_and_no_bill_or_a_bill_and_not_booked_differs(ledger: Ledger, clock: Clock) -> None:
    await busy(ledger, clock)
    async with ledger.database.write() as connection:
        await connection.execute(update(tables.usage).values(eflops=61))
    (difference,) = (await checked(ledger)).differences
    assert "acme" in difference
    assert "61 eFLOPs are booked, and the bills come to 60" in difference
    async with ledger.database.write() as connection:
        await connection.execute(text("DELETE FROM usage"))
    (difference,) = (await checked(ledger)).differences
    assert "0 eFLOPs are booked" in difference


async def test_the_command_agrees_or_says_what_differs_and_fails(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    ledger = Ledger(Database(str(file)))
    await ledger.database.migrate()
    owner = await tenant(ledger)
    await settle(ledger, A, owner, 10)
    await ledger.close()
    command = ("ledger", "check", "--ledger", str(file))
    assert "the ledger's books agree; no outbox was looked at" in await _run(*command)
    outbox = OutboxFile(tmp_path / "ledger.db-outbox")
    bills = [Settlement(id, 9, "gone", "m", "auto", 9, 9, int(time.time())) for id in (B, C)]
    outbox.check()
    assert "all agree" in await _run(*command)
    outbox.write([Change(put=bills), Change(rejected=[(B, "no such tenant")])])
    with outbox._working() as connection:
        connection.execute("UPDATE settlements SET put_at = put_at - 100")
    outbox.close()
    assert "2 things differ" in await _run(*command, succeeds=False)


@pytest.mark.parametrize("where", ["environment", "dotenv", "file"])
async def test_the_command_looks_where_the_server_keeps_bills_and_fails_where_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file, outbox = tmp_path / "ledger.db", tmp_path / "elsewhere"
    ledger = Ledger(Database(str(file)))
    await ledger.database.migrate()
    await ledger.close()
    if where == "environment":
        monkeypatch.setenv("KINETICS_OUTBOX", str(outbox))
    elif where == "dotenv":
        (tmp_path / ".env").write_text(f"KINETICS_OUTBOX={outbox}\n")
    else:
        (tmp_path / "kinetics.yaml").write_text(f"outbox: {outbox}\n")
        monkeypatch.setenv("KINETICS_CONFIG", "kinetics.yaml")
    command = ("ledger", "check", "--ledger", str(file))
    assert f"there is no outbox at {outbox}" in await _run(*command, succeeds=False)
    assert "there is no outbox at" in await _run(*command, "--outbox", str(tmp_path / "other"), succeeds=False)
    bills = OutboxFile(outbox)
    bills.check()
    bills.close()
    assert f"bills in the outbox {outbox}: 0 waiting" in await _run(*command)


async def test_another_ledgers_outbox_is_neither_served_from_nor_checked(tmp_path: Path) -> None:
    outbox, identities = tmp_path / "outbox", []
    for name in ("ours", "theirs"):
        ledger = Ledger(Database(str(tmp_path / name)))
        await ledger.database.migrate()
        identities.append(await ledger.identity())
        await ledger.close()
    file = OutboxFile(outbox, identities[0])
    file.open()
    file.close()
    assert "0 waiting" in await _run("ledger", "check", "--ledger", str(tmp_path / "ours"), "--outbox", str(outbox))
    places = ("--ledger", str(tmp_path / "theirs"), "--outbox", str(outbox))
    words = f"keeps the bills of {identities[0]}, and this is {identities[1]}"
    assert words in " ".join((await _run("ledger", "check", *places, succeeds=False)).split())
    serve = (sys.executable, "-m", "kinetics_serve", "serve", "--upstream", "http://127.0.0.1:9", "--hardware", "cpu")
    refused = subprocess.run([*serve, *places], capture_output=True, text=True, timeout=180)
    assert refused.returncode == 1
    assert f"{words}; state another --outbox" in " ".join(refused.stderr.split())


async def _run(*arguments: str, succeeds: bool = True) -> str:
    return await asyncio.to_thread(run_command, *arguments, succeeds=succeeds)
