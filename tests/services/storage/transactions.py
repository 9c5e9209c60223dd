"""Transactions for tests of databases."""

from __future__ import annotations

from services.storage.base import Transaction, notify

INSERT = "INSERT INTO settings (name, value) VALUES (?, ?)"


def put(name: str, *, fail: bool = False) -> Transaction[str]:
    """Insert a row and notify, or raise after that."""
    yield INSERT, (name, "value")
    if fail:
        yield notify(f"{name} failed")
        raise LookupError(name)
    yield notify(name)
    return name


def count() -> Transaction[int]:
    """Count the rows."""
    rows = yield "SELECT count(*) FROM settings", ()
    return int(str(rows[0][0]))


def broken() -> Transaction[None]:
    """Read a table that does not exist."""
    yield "SELECT nothing FROM nowhere", ()
