"""Channels that operators have disabled, in every process on one database.

`ChannelHealth.disabled` is what calls look at. A notice of any process, and the end of a
disablement, update it. A process that misses a notice learns of the change with the next one, or
after `RECHECK_S`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence

from services.clock import Clock
from services.common.plain_metrics import PlainMetrics
from services.errors import Failure
from services.routing.health import ChannelHealth
from services.storage.base import Database
from services.storage.channel_switches import NOTICE, disabled_channels

log = logging.getLogger(__name__)

RECHECK_S = 30.0
"""Interval of reads without a notice."""


class ChannelSwitches:
    """Keeps the disabled channels as the database has them."""

    def __init__(self, database: Database, health: ChannelHealth, clock: Clock) -> None:
        self._health = health
        self._database = database
        self._clock = clock
        self._changed = asyncio.Event()
        database.subscribe(self._on_notice)

    def declare_metrics(self, counters: PlainMetrics) -> None:
        """Declare the metric of disabled channels."""

        def gauges() -> Iterator[tuple[Sequence[str], float]]:
            for name in self._health.disabled:
                yield (name,), 1.0

        counters.observable_gauges(
            "channel_disabled", "1 for each channel that an operator has disabled.",
            ("channel",), gauges,
        )  # fmt: skip

    async def refresh(self) -> None:
        """Read the disabled channels. Raise Failure STORAGE_UNAVAILABLE."""
        found = await self._database.read(disabled_channels)
        now_ms = self._clock.time() * 1000
        disabled = {
            name: row
            for name, row in found.items()
            if row.until_ms is None or row.until_ms > now_ms
        }
        for name in disabled.keys() - self._health.disabled.keys():
            log.warning("channel.disabled", extra={"channel": name})
        for name in self._health.disabled.keys() - disabled.keys():
            log.info("channel.enabled", extra={"channel": name})
        self._health.disabled = disabled

    async def watch(self) -> None:
        """Follow the changes for ever."""
        while True:
            self._changed.clear()
            try:
                await self.refresh()
            except Failure as failure:
                log.warning("channel_switches.unread", extra={"reason": failure.reason})
            try:
                async with asyncio.timeout(self._next_check_s()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _next_check_s(self) -> float:
        """Return the time until the first disablement ends, or the interval of reads."""
        now_ms = self._clock.time() * 1000
        rows = self._health.disabled.values()
        ends = [row.until_ms - now_ms for row in rows if row.until_ms is not None]
        return max(0.01, min([RECHECK_S, *(end / 1000 for end in ends)]))

    def _on_notice(self, payload: str) -> None:
        if payload in {NOTICE, ""}:
            self._changed.set()
