"""`python -m tests.faults`: every fault, on SQLite and PostgreSQL. Prints a table; exits with 1 unless all is right."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from tests.faults import clients, databases, front_ends, money, outages, postgresql, silence, sqlite_file, upstreams
from tests.faults.scene import Scene, scene
from tests.faults.tally import Tally, table

Fault = Callable[[Scene], Awaitable[Tally]]

FAULTS: tuple[Fault, ...] = (
    *(money.no_fault, money.quota),
    *(clients.leave, clients.idle_and_slow, clients.many_requests),
    *(upstreams.other_bytes, upstreams.nonsense_usage, upstreams.redirects, upstreams.past_max_tokens),
    *(silence.stands_still, silence.a_byte_now_and_then, silence.models_unanswered),
    *(outages.killed, outages.away, outages.one_of_two_flaps),
    *(front_ends.stands_still, front_ends.stands_still_under_a_quota, front_ends.a_worker_is_killed),
    *(databases.away, databases.stands_still, databases.disk_full),
    *(front_ends.a_front_end_is_killed, front_ends.a_front_end_is_killed_in_long_streams),
    *(front_ends.a_front_end_is_stopped, front_ends.has_to_stop_soon, front_ends.the_parent_is_killed),
)
OF_ONE: dict[str, tuple[Fault, ...]] = {
    "sqlite": (sqlite_file.overwritten,),
    "postgresql": (postgresql.restarted, postgresql.restarted_at_once, postgresql.connections_used_up),
}
"""By the ledger that they happen to."""


async def tried(kinds: list[str], only: str = "") -> list[Tally]:
    tallies = []
    for kind in kinds:
        async with scene(kind) as made:
            for fault in FAULTS + OF_ONE[kind]:
                name = f"{fault.__module__}.{fault.__name__}"
                if only in name:
                    try:
                        tallies.append(await fault(made))
                    except Exception as error:  # the others are tried all the same
                        broken = Tally(name, made.kind)
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
