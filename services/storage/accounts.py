"""Who pays."""

from __future__ import annotations

import msgspec

from services.storage.base import Transaction

ENSURE = """
    INSERT INTO accounts (name, unlimited, created_ms) VALUES (?, ?, ?)
    ON CONFLICT (name) DO NOTHING RETURNING name
"""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A customer."""

    name: str
    """Unique, for ever."""
    unlimited: bool
    """Whether it may spend what it does not have."""
    created_ms: int
    """When it was opened."""


def ensure_account(name: str, now_ms: int, *, unlimited: bool = False) -> Transaction[bool]:
    """Opens the account unless there is one of that name; whether it did."""
    rows = yield ENSURE, (name, int(unlimited), now_ms)
    return bool(rows)
