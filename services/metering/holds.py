"""Holds of admitted requests, as the ledger hands them out."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from pomogator.chat.v1 import usage_pb2

from services.storage.ledger import NO_TOKENS, HoldRow, Tokens

SOURCES = {
    usage_pb2.USAGE_SOURCE_UNSPECIFIED: "",
    usage_pb2.USAGE_SOURCE_PROVIDER: "provider",
    usage_pb2.USAGE_SOURCE_DRAINED: "drained",
    usage_pb2.USAGE_SOURCE_COUNTED: "counted",
}
"""How the database spells who counted."""


class HoldRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks the ledger for."""

    request_id: str
    """As logs have it. Callers may choose it: it need not be unique."""
    account: str
    """Who pays."""
    key_id: str
    """Who asks."""
    model: str
    """The public model."""
    amount_nano: int
    """The most that it is expected to cost. 0: it is free, and always admitted."""
    price: str = "{}"
    """The price in force, as JSON. Kept with the hold: later prices do not matter to it."""
    monthly_nano: int | None = None
    """What the key may spend in a calendar month (UTC). None: no limit."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Hold:
    """What an admitted request has taken. It is ended by `Ledger.settle` or `Ledger.void`."""

    row: HoldRow
    """As it stands in the database."""
    charge_nano: int = 0
    """What it would cost if it ended now: the last checkpoint."""
    usage: usage_pb2.Usage | None = None
    """What it has used until then."""
    ended: bool = False
    """Whether its end has been decided."""

    @property
    def id(self) -> str:
        """Unique for ever."""
        return self.row.id


def tokens_of(usage: usage_pb2.Usage | None) -> Tokens:
    if usage is None:
        return NO_TOKENS
    return Tokens(
        SOURCES[usage.source],
        usage.prompt_token_count,
        usage.completion_token_count,
        usage.thinking_token_count,
        usage.cache_read_token_count,
        usage.cache_write_token_count,
    )
