"""A few transactions to try a database with."""

from __future__ import annotations

from services.storage.base import Transaction, notify

INSERT = "INSERT INTO settings (name, value) VALUES (?, ?)"


def put(name: str, *, fail: bool = False) -> Transaction[str]:
    """Adds a row and tells of it, or raises after it did."""
    yield INSERT, (name, "value")
    if fail:
        yield notify(f"{name} failed")
        raise LookupError(name)
    yield notify(name)
    return name


def count() -> Transaction[int]:
    """How many rows there are."""
    rows = yield "SELECT count(*) FROM settings", ()
    return int(str(rows[0][0]))


def broken() -> Transaction[None]:
    """Asks for what is not there."""
    yield "SELECT nothing FROM nowhere", ()
