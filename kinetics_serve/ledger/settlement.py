"""What a request has cost in the end."""

from dataclasses import dataclass

DAY_S = 86_400

KEEP_SETTLED_DAYS = 8
"""How many days what was settled is remembered one by one. A settlement that comes later and is not known was booked
before, or was an expired reservation, which is remembered for longer."""

KEEP_EXPIRED_DAYS = 92
"""How many days an expired reservation is remembered, in case that its front-end settles it yet."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """The bill of one request, complete in itself: it can be booked where its reservation is not known any more.

    id: the reservation's, 32 hexadecimal digits. reserved, spent: eFLOPs. at: seconds since 1970.
    """

    id: str
    tenant_id: int
    tenant: str
    model: str
    strategy: str
    reserved: int
    spent: int
    at: int

    @property
    def booked(self) -> int:
        """eFLOPs: no request costs more than was reserved for it."""
        return min(self.spent, self.reserved)
