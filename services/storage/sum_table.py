"""Tables of sums: figures that are added to the row of their key."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.storage.base import Transaction, Values

TOKENS: Sequence[str] = (
    *("prompt_tokens", "completion_tokens", "thinking_tokens"),
    *("cache_read_tokens", "cache_write_tokens"),
)
"""Columns with the tokens of calls, as holds and rows of the call log have them, too."""


class SumTable:
    """Table with columns of a key, of which those in `texts` are texts, and columns of figures."""

    def __init__(
        self, name: str, key: Sequence[str], figures: Sequence[str], *, texts: Sequence[str]
    ) -> None:
        self._columns = (*key, *figures)
        names, places = ", ".join(self._columns), ", ".join("?" * len(self._columns))
        added = ", ".join(f"{each} = {name}.{each} + excluded.{each}" for each in figures)
        upsert = f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {added}"
        types = ", ".join(f"{c} {'TEXT' if c in texts else 'BIGINT'}" for c in self._columns)
        rows = f"json_to_recordset(CAST(CAST(? AS TEXT) AS JSON)) AS row ({types})"
        self._add = f"INSERT INTO {name} ({names}) VALUES ({places}) {upsert}"  # noqa: S608
        self._add_json = f"INSERT INTO {name} ({names}) SELECT {names} FROM {rows} {upsert}"  # noqa: S608

    def add(self, rows: Sequence[Values]) -> Transaction[None]:
        """Add rows of a key and its figures."""
        yield self._add, list(rows)

    def add_batch(self, rows: Sequence[Values], dialect: str) -> Transaction[None]:
        """Add many rows at a time: in PostgreSQL with one statement, in SQLite one by one."""
        if dialect == "postgres":
            objects = [dict(zip(self._columns, row, strict=True)) for row in rows]
            yield self._add_json, (msgspec.json.encode(objects).decode(),)
        else:
            yield from self.add(rows)
