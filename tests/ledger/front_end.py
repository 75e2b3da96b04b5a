"""A process with an engine of its own that reserves from a ledger.

`front_end.py URL TENANT COUNT EFLOPS LEASE_S [hold]` prints how many of COUNT concurrent reservations
succeeded; with `hold`, it then waits to be killed.
"""

import asyncio
import sys
import uuid

from kinetics_serve.ledger import tenants
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.errors import QuotaExceeded
from kinetics_serve.ledger.ledger import Ledger


async def main(url: str, name: str, count: int, eflops: int, lease_s: int, hold: bool) -> None:
    ledger = Ledger(Database(url), lease_s)
    async with ledger.database.read() as connection:
        tenant = await tenants.by_name(connection, name)

    async def reserve() -> bool:
        id = uuid.uuid4().hex
        try:
            await ledger.reserve(id, tenant, "m", "auto", eflops)
        except QuotaExceeded:
            return False
        if hold:
            await ledger.renew(id, eflops // 10)
        return True

    print(sum(await asyncio.gather(*(reserve() for _ in range(count)))), flush=True)
    if hold:
        await asyncio.sleep(3600)
    await ledger.close()


asyncio.run(
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:] == ["hold"])
)
