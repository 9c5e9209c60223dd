"""The holds of an account's calls, read from the database while a gateway uses it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import asyncpg

SELECT = (
    "SELECT request_id, state, amount, charge, checkpoint FROM holds "
    "WHERE extends = '' AND account = "
)


@dataclass(frozen=True, slots=True)
class HoldRow:
    """A hold's row in the database."""

    request_id: str
    """The request ID of its call."""
    state: str
    """`held`, `settled`, `voided` or `recovered`."""
    amount: int
    """The amount, in nano-USD."""
    charge: int
    """The charge."""
    checkpoint: int | None
    """The charge at the latest checkpoint, if there is one."""


async def holds_of(account: str, state: Path, database_url: str = "") -> Sequence[HoldRow]:
    """All holds in any state; from PostgreSQL where there is a URL."""
    if database_url:
        admin = await asyncpg.connect(database_url)
        try:
            return [HoldRow(*row) for row in await admin.fetch(SELECT + "$1", account)]
        finally:
            await admin.close()
    with closing(sqlite3.connect(f"file:{state / 'pomogator.db'}?mode=ro", uri=True)) as reader:
        return [HoldRow(*row) for row in reader.execute(SELECT + "?", (account,))]
