"""Holds: the amount that the ledger reserves for an admitted request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol
from weakref import ref

import msgspec

from services.domain.usage import Usage
from services.metering.usage import UsageMeter
from services.storage.ledger import HoldRow


class HoldTerms:
    """Terms of the holds of one key for one model."""

    __slots__ = ("has_budget", "row")

    def __init__(
        self,
        *,
        account: str,
        key_id: str,
        model: str,
        price: str = "{}",
        monthly_nano: int | None = None,
    ) -> None:
        """`account` pays for the calls of the key to a public model.

        The price in force, as JSON, is stored with each hold, so later prices do not apply.
        `monthly_nano` is the budget of the key for a calendar month (UTC). None: no limit.
        """
        self.has_budget = monthly_nano is not None
        """Whether the key has a budget."""
        self.row = HoldRow(
            id="",
            request_id="",
            account=account,
            key_id=key_id,
            model=model,
            amount=0,
            price=price,
            month="",
            budget=monthly_nano or 0,
            owner="",
            created_ms=0,
        )
        """Row of the holds, without what each of them has of its own."""


class CheckpointedCall(Protocol):
    """A call in flight that the ledger asks for checkpoints."""

    meter: UsageMeter
    """Meter of its answer."""

    @property
    def has_uncounted(self) -> bool:
        """Whether more of the answer has come than the last checkpoint has."""
        ...

    def checkpoint(self) -> None:
        """Update the usage so far, to be written. A call that is over ignores it."""


class Hold(msgspec.Struct, eq=False, weakref=True):
    """Hold of an in-flight call, until `Ledger.settle` or `Ledger.void` ends it."""

    row: HoldRow
    """The row in the database."""
    terms: HoldTerms
    """Terms of the call."""
    amount_nano: int
    """The amount, extensions included."""
    charge_nano: int = 0
    """Charge at the last checkpoint."""
    usage: Usage | None = None
    """Usage at the last checkpoint."""
    call: ref[CheckpointedCall] | None = None
    """The call, which has the hold. None: it makes its checkpoints without being asked."""
    extensions: tuple[Hold, ...] = ()
    """Holds that were taken later. They end with this one, which has the whole charge."""

    @property
    def id(self) -> str:
        """Unique ID."""
        return self.row.id


def month_of(time_s: float) -> str:
    """Return the month of a budget, such as `2026-11`, at a time since 1970."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m")
