"""Leases of processes, as statements. The ledger of each process renews its lease."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.storage.base import Transaction

RENEW_LEASE = """
    INSERT INTO leases (owner, until_ms) VALUES (?, now_ms() + ?)
    ON CONFLICT (owner) DO UPDATE SET until_ms = excluded.until_ms
"""
END_LEASES = "DELETE FROM leases WHERE owner = ? OR ? = ''"
END_LEASE = "DELETE FROM leases WHERE owner = ? AND until_ms = ?"
SELECT_EXPIRED_LEASES = """
    SELECT owner, until_ms FROM leases
    WHERE until_ms < now_ms() OR until_ms > now_ms() + ?
"""
COUNT_LIVE_LEASES = "SELECT count(*) FROM leases WHERE until_ms >= now_ms()"
LEASE_MAX_MS = 24 * 3600 * 1000
"""Longest lease. One with more time left was granted before the clock was set back."""


class ExpiredLease(msgspec.Struct, frozen=True, array_like=True):
    """Lease that has expired by the database's clock."""

    owner: str
    """Process that held the lease."""
    until_ms: int
    """Expiry time. A live process has moved it by the next sweep."""


def renew_lease(owner: str, lease_ms: int) -> Transaction[None]:
    """Renew the lease of a process, by the database's clock."""
    yield RENEW_LEASE, (owner, lease_ms)


def count_live_leases() -> Transaction[int]:
    """Count the processes whose lease has not expired."""
    rows = yield COUNT_LIVE_LEASES, ()
    return int(str(rows[0][0]))


def end_leases(owner: str = "") -> Transaction[None]:
    """End the lease of a process, or without a name all leases."""
    yield END_LEASES, (owner, owner)


def end_expired_leases(seen: Sequence[ExpiredLease]) -> Transaction[list[ExpiredLease]]:
    """End the leases in `seen` that have not been renewed since, and return the expired ones.

    A lease ends only at the second sweep that finds it expired: when the database's clock
    jumps, the leases of all live processes expire at the same moment.
    """
    for lease in seen:
        yield END_LEASE, (lease.owner, lease.until_ms)
    rows = yield SELECT_EXPIRED_LEASES, (LEASE_MAX_MS,)
    return [msgspec.convert(row, ExpiredLease) for row in rows]
