"""Holds: the amount that the ledger reserves for an admitted request."""

from __future__ import annotations

import itertools
import secrets
from datetime import UTC, datetime

import msgspec

from services.clock import Clock
from services.domain.usage import Usage
from services.metering.usage import UsageMeter
from services.storage.ledger import HoldRow


class HoldTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Terms of the holds of one key for one model."""

    account: str
    """Account that pays."""
    key_id: str
    """Key of the caller."""
    model: str
    """Public model."""
    price: str = "{}"
    """Price in force, as JSON. It is stored with the hold, so later prices do not apply."""
    monthly_nano: int | None = None
    """Budget of the key for a calendar month (UTC). None: no limit."""


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
    meter: UsageMeter | None = None
    """Meter of the answer, which the ledger asks for checkpoints. None: the call writes its own."""
    ended: bool = False
    """Whether the hold was settled or voided."""
    extensions: tuple[Hold, ...] = ()
    """Holds that were taken later. They end with this one, which has the whole charge."""

    @property
    def id(self) -> str:
        """Unique ID."""
        return self.row.id


class HoldRows:
    """Rows of new holds of one process, which has its lease under the name `owner`."""

    def __init__(self, owner: str, clock: Clock) -> None:
        self._owner = owner
        self._clock = clock
        self._id_prefix = secrets.token_hex(6)
        self._serials = itertools.count()

    def new(
        self, terms: HoldTerms, request_id: str, amount_nano: int, extended: HoldRow | None
    ) -> HoldRow:
        """Return the row of a hold. It counts in the month of the hold that it extends, if any."""
        now_s = self._clock.time()
        budget, month, extends = terms.monthly_nano, "", ""
        if extended is not None:
            month, extends = extended.month, extended.id
        elif budget is not None:
            month = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m")
        now_ms = int(now_s * 1000)
        return HoldRow(
            id=f"hold-{now_ms:011x}-{self._id_prefix}{next(self._serials) & 0xFFFF:04x}",
            request_id=request_id,
            account=terms.account,
            key_id=terms.key_id,
            model=terms.model,
            amount=amount_nano,
            price=terms.price,
            month=month,
            budget=budget or 0,
            owner=self._owner,
            created_ms=now_ms,
            extends=extends,
        )
