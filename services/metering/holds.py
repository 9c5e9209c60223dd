"""Holds: the amount that the ledger reserves for an admitted request."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from services.domain.usage import Usage
from services.storage.ledger import NO_TOKENS, HoldRow, Tokens


class HoldRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Request for a hold."""

    request_id: str
    """Request ID in logs and answers. Callers may choose it, so it need not be unique."""
    account: str
    """Account that pays."""
    key_id: str
    """Key of the caller."""
    model: str
    """Public model."""
    amount_nano: int
    """Highest expected cost. 0: the call is free and always admitted."""
    price: str = "{}"
    """Price in force, as JSON. It is stored with the hold, so later prices do not apply."""
    monthly_nano: int | None = None
    """Budget of the key for a calendar month (UTC). None: no limit."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Hold:
    """Hold of an in-flight call, until `Ledger.settle` or `Ledger.void` ends it."""

    row: HoldRow
    """The row in the database."""
    charge_nano: int = 0
    """Charge at the last checkpoint."""
    usage: Usage | None = None
    """Usage at the last checkpoint."""
    ended: bool = False
    """Whether the hold was settled or voided."""

    @property
    def id(self) -> str:
        """Unique ID."""
        return self.row.id


def tokens_of(usage: Usage | None) -> Tokens:
    """Return the tokens of a usage, as the database stores them."""
    if usage is None:
        return NO_TOKENS
    return Tokens(
        usage.source,
        usage.prompt_token_count,
        usage.completion_token_count,
        usage.thinking_token_count,
        usage.cache_read_token_count,
        usage.cache_write_token_count,
    )
