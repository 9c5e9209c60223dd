"""Usage of one key: its charges by period, and its message."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from pomogator.usage.v1 import usage_service_pb2 as pb

from services.accounts.proto_fields import int64, timestamp
from services.clock import Clock
from services.storage.account_sums import KeyCharges, PeriodStarts, key_charges
from services.storage.base import Database


class KeyReports:
    """Reads the usage of keys."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.one_at_a_time = asyncio.Semaphore(1)
        """Held by each report. A report reads all calls of its time range, about a microsecond
        each, on the thread that also looks up keys, so that a lookup waits for one at most."""

    async def of(self, key_id: str) -> KeyCharges | None:
        """Return a key with its charges. None: there is no such key."""
        now = datetime.fromtimestamp(self._clock.time(), UTC)
        async with self.one_at_a_time:
            return await self._database.read(
                key_charges, key_id, _period_starts(now), f"{now:%Y-%m}"
            )


def key_usage(found: KeyCharges) -> pb.KeyUsage:
    """Return the message of a key's usage."""
    key, scope = found.key, found.key.scope
    limit = scope.monthly_nano_usd
    return pb.KeyUsage(
        key_id=key.id,
        account=key.account,
        display_name=key.display_name,
        prefix=key.prefix,
        expire_time=None if scope.expire_ms is None else timestamp(scope.expire_ms),
        requests_per_minute=scope.rpm,
        monthly_limit_nano_usd=limit,
        monthly_remaining_nano_usd=None if limit is None else max(0, limit - found.budget_used),
        total_nano_usd=int64(found.total),
        daily_nano_usd=int64(found.day),
        weekly_nano_usd=int64(found.week),
        monthly_nano_usd=int64(found.month),
        administers_account=scope.administers_account,
    )


def _period_starts(now: datetime) -> PeriodStarts:
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    week = day - timedelta(days=day.weekday())
    return PeriodStarts(
        total=0,
        day=round(day.timestamp() * 1000),
        week=round(week.timestamp() * 1000),
        month=round(day.replace(day=1).timestamp() * 1000),
    )
