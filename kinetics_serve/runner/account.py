"""One request's budget. What is spent and what is promised never exceed it together."""


class OverBudget(Exception):
    """A reservation that the account can't cover."""


class Account:
    """A budget in whole eFLOPs, so that sums are exact.

    A sample is launched against a reservation of its worst case and settled for what it did cost, which is no
    more: spent + reserved ≤ budget holds at all times.
    """

    def __init__(self, budget: int) -> None:
        if budget < 0:
            raise ValueError(f"a budget can't be negative, got {budget} eFLOPs")
        self.budget = budget
        self.spent = 0
        self.reserved = 0
        self._reservations: dict[int, int] = {}

    @property
    def available(self) -> int:
        return self.budget - self.spent - self.reserved

    def reserve(self, sample: int, eflops: int) -> None:
        """Sets `eflops` aside for `sample`. Raises OverBudget and changes nothing if they aren't there."""
        if sample in self._reservations:
            raise ValueError(f"sample {sample} has a reservation already")
        if not 0 <= eflops <= self.available:
            raise OverBudget(f"{eflops} eFLOPs asked for, {self.available} available")
        self._reservations[sample] = eflops
        self.reserved += eflops

    def reservation(self, sample: int) -> int:
        return self._reservations[sample]

    def settle(self, sample: int, eflops: int) -> None:
        """Spends `eflops` of the sample's reservation and frees the rest."""
        reserved = self._reservations[sample]
        if not 0 <= eflops <= reserved:
            raise OverBudget(f"sample {sample} cost {eflops} eFLOPs, {reserved} were reserved")
        del self._reservations[sample]
        self.reserved -= reserved
        self.spent += eflops
