"""The ledger entries of one account, as far as its caller can know them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.admission.ticket import STEP_TOKENS
from tests.stand.holds import HoldRow

MAX_TOKENS = 50
TOKEN_NANO = 10_000
STEP_NANO = STEP_TOKENS * TOKEN_NANO
"""The most that a call may be charged beyond what the account has."""


def price(request_nano: int, words: int) -> int:
    """The price of an answer with this many words."""
    return request_nano + words * TOKEN_NANO


@dataclass(slots=True)
class ExpectedCall:
    """One call that was admitted."""

    request_nano: int
    """The price of a request at admission."""
    open: bool = True
    """Whether its hold must be open."""
    ends: frozenset[str] = frozenset()
    """The states in which its hold may end."""
    low: int = 0
    """The least that it may be charged."""
    high: int = 0
    """The most that it may be charged."""
    charge: int | None = None
    """The charge, once its hold has ended."""

    @property
    def hold(self) -> int:
        """The amount of its hold."""
        return price(self.request_nano, MAX_TOKENS)

    @property
    def lost(self) -> bool:
        """Whether its process died and its hold has not been recovered yet."""
        return not self.open and "recovered" in self.ends and self.charge is None

    def settled(self, words: int) -> None:
        """Expects a settlement of this many words."""
        self.open, self.ends = False, frozenset({"settled"})
        self.low = self.high = price(self.request_nano, words)

    def outran(self, free: int) -> None:
        """Expects a settlement of a call that ended for lack of money, with `free` beside it."""
        self.open, self.ends = False, frozenset({"settled"})
        self.low, self.high = self.hold, self.hold + max(0, free) + STEP_NANO

    def voided(self) -> None:
        """Expects a hold without a charge."""
        self.open, self.ends = False, frozenset({"voided"})

    def orphaned(self, words: int, checkpoint: int | None) -> None:
        """Expects a recovery: the process died after this many words and this checkpoint."""
        ends = {"recovered"} if checkpoint is not None else {"recovered", "voided"}
        self.open, self.ends = False, frozenset(ends)
        self.low = checkpoint or self.request_nano
        self.high = price(self.request_nano, words)

    def see(self, row: HoldRow) -> None:
        """Compares with a row of the database. AssertionError where they differ."""
        assert row.amount == self.hold, row
        if row.state == "held":
            assert self.charge is None, f"it had ended: {row}"
            return
        assert row.state in self.ends, (row, self)
        assert row.charge == 0 if row.state == "voided" else self.low <= row.charge <= self.high
        assert self.charge in (None, row.charge), f"another charge: {row}"
        self.charge = row.charge


@dataclass(slots=True)
class ExpectedBooks:
    """The expected balance and holds of an account."""

    credits: int = 0
    """The sum of all credits."""
    entries: dict[str, ExpectedCall] = field(default_factory=dict)
    """All calls that were admitted, by request ID."""

    @property
    def posted(self) -> int:
        """The balance."""
        return self.credits - sum(entry.charge or 0 for entry in self.entries.values())

    @property
    def held(self) -> int:
        """The sum of all holds."""
        return sum(entry.hold for entry in self.entries.values() if entry.charge is None)

    @property
    def lost(self) -> Sequence[str]:
        """The calls of dead processes that have not been recovered yet."""
        return [name for name, entry in self.entries.items() if entry.lost]

    def see(self, rows: Sequence[HoldRow]) -> bool:
        """Whether all expected ends are in the books. AssertionError where they are wrong."""
        names = [row.request_id for row in rows]
        assert len(names) == len(set(names)), "two holds for one call"
        assert set(names) <= self.entries.keys(), set(names) - self.entries.keys()
        if set(names) != self.entries.keys():
            return False  # A hold is in the journal for some milliseconds.
        for row in rows:
            self.entries[row.request_id].see(row)
        return all(entry.open or entry.lost or entry.charge is not None
                   for entry in self.entries.values())  # fmt: skip
