"""`python -m tests.faults`: every fault, on SQLite and PostgreSQL. Prints a table; exits with 1 unless all is right."""

import argparse
import asyncio
import sys

from tests.faults import databases, front_ends, money, upstreams
from tests.faults.scene import scene
from tests.faults.tally import Tally, table

FAULTS = (
    *(money.no_fault, money.quota, money.clients_that_leave),
    *(upstreams.other_bytes, upstreams.nonsense_usage, upstreams.redirects),
    *(front_ends.stands_still, front_ends.a_worker_is_killed),
    *(databases.away, databases.stands_still, databases.disk_full),
    *(front_ends.a_front_end_is_killed, front_ends.a_front_end_is_stopped),
)


async def tried(kinds: list[str], only: str = "") -> list[Tally]:
    tallies = []
    for kind in kinds:
        async with scene(kind) as made:
            for fault in FAULTS:
                if only in f"{fault.__module__}.{fault.__name__}":
                    try:
                        tallies.append(await fault(made))
                    except Exception as error:  # the others are tried all the same
                        broken = Tally(f"{fault.__module__}.{fault.__name__}", made.kind)
                        broken.expect(False, f"broke off: {error!r:.200}")
                        tallies.append(broken)
                        made.upstream.well()
                    print("  ".join(tallies[-1].cells), file=sys.stderr, flush=True)
    return tallies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ledger", choices=["sqlite", "postgresql"], help="only on this one")
    parser.add_argument("--only", default="", help="faults with this in their name, such as databases.away")
    options = parser.parse_args()
    kinds = [options.ledger] if options.ledger else ["sqlite", "postgresql"]
    tallies = asyncio.run(tried(kinds, options.only))
    print(table(tallies))
    sys.exit(any(tally.wrong for tally in tallies))


if __name__ == "__main__":
    main()
