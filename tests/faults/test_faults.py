"""A selection of `make faults`, for every run of the tests: two minutes on a quiet machine."""

import pytest

from tests.faults import databases, front_ends, money, upstreams
from tests.faults.scene import scene

SELECTION = (money.no_fault, upstreams.other_bytes, upstreams.nonsense_usage, front_ends.stands_still, databases.away)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_what_was_answered_is_booked_at_its_bill_after_every_fault(kind: str) -> None:
    async with scene(kind) as made:
        for fault in SELECTION:
            tally = await fault(made)
            assert not tally.wrong, tally
