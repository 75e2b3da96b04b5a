"""API keys."""

import logging
from pathlib import Path

import pytest

from kinetics_serve.ledger import keys
from kinetics_serve.ledger.errors import LedgerMisuse
from kinetics_serve.ledger.ledger import Ledger
from tests.ledger.conftest import key_of, tenant


async def test_a_key_names_its_tenant_until_it_is_revoked(ledger: Ledger) -> None:
    acme, other = await tenant(ledger), await tenant(ledger, "other")
    key, second = await key_of(ledger, acme), await key_of(ledger, other)
    assert await ledger.owner(key) == acme
    assert await ledger.owner(second) == other
    async with ledger.database.write() as connection:
        await keys.revoke(connection, 1, ledger.now)
    assert await ledger.owner(key) is None
    assert await ledger.owner(second) == other
    async with ledger.database.read() as connection:
        listed = await keys.everything(connection)
    assert [(each.tenant, each.revoked_at is None) for each in listed] == [("acme", False), ("other", True)]


@pytest.mark.parametrize("wrong", ["", "sk-kinetics-", "' OR 1=1 --", "x" * 10_000, "\x00", "ключ", "\udcff"])
async def test_what_is_no_key_names_nobody(ledger: Ledger, wrong: str) -> None:
    await key_of(ledger, await tenant(ledger))
    assert await ledger.owner(wrong) is None


async def test_only_keys_in_use_can_be_revoked(ledger: Ledger) -> None:
    with pytest.raises(LedgerMisuse, match="id 7"):
        async with ledger.database.write() as connection:
            await keys.revoke(connection, 7, ledger.now)


def test_keys_hold_256_random_bits() -> None:
    made = {keys.new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(key) - len(keys.PREFIX) == 43 for key in made)  # base64 of 32 bytes


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_key_is_neither_in_the_database_files_nor_in_the_log(
    ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        key = await key_of(ledger, await tenant(ledger))
        await ledger.owner(key)
        files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    secret = key.removeprefix(keys.PREFIX)
    assert keys.hashed(key) in files
    assert secret.encode() not in files
    assert secret not in caplog.text
