"""Models that were offered, as statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from services.storage.base import Transaction

OFFER = "INSERT INTO models (name, created_ms) VALUES (?, ?) ON CONFLICT (name) DO NOTHING"
SELECT_ALL = "SELECT name, created_ms FROM models"
SELECT = "SELECT created_ms FROM models WHERE name = ?"


def all_offers() -> Transaction[Mapping[str, int]]:
    """Return the time at which each model was first offered."""
    rows = yield SELECT_ALL, ()
    return dict(msgspec.convert([list(row) for row in rows], list[tuple[str, int]]))


def first_offers(names: Sequence[str], now_ms: int) -> Transaction[Mapping[str, int]]:
    """Return the time at which each model was first offered. For a new one this is `now_ms`.

    The order of `names` must be the same everywhere, which avoids deadlocks.
    """
    times = {}
    for name in names:
        yield OFFER, (name, now_ms)
        rows = yield SELECT, (name,)
        times[name] = msgspec.convert(rows[0][0], int)
    return times
