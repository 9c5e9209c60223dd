"""Limits in this process: leaky buckets for rates, leases for concurrent calls.

Rates follow the generic cell rate algorithm with a burst of one minute's allowance. A bucket's
level is the amount that was drawn and has not drained yet. One request or token is `PERIOD_US`
units, and `limit` units drain every microsecond. All numbers are integers, so the retry time is
exact. In any window at most `limit` + rate x window are admitted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

from services.clock import Clock

PERIOD_US = 60_000_000
"""Rates are per minute."""

LIMIT_MAX = 100_000_000
"""Highest limit. It keeps levels below 2**53, up to which every store counts exactly."""

LEASE_S = 60.0
"""Lease of an in-flight call in a concurrency limit, unless it is renewed."""

CALL_RETRY_AFTER_US = 1_000_000
"""Retry time at a concurrency limit, since the end of a running call is unknown."""

REMOVALS_PER_NEW = 2
"""Counters checked for removal per new counter. More than one, so memory shrinks again."""


class MeterKind(Enum):
    """Quantity that a meter limits. The value is its name in answers."""

    REQUESTS = "requests"
    """Requests per minute."""
    TOKENS = "tokens"
    """Tokens per minute."""
    CALLS = "concurrency"
    """Concurrent calls."""


class Meter(NamedTuple):
    """Limit on one counter."""

    key: str
    """Key of the counter. Meters with equal keys share it."""
    kind: MeterKind
    """Quantity."""
    limit: int
    """Limit in [1, `LIMIT_MAX`]."""


class TakeResult(NamedTuple):
    """Decision of `CounterStore.take`."""

    levels: Sequence[int]
    """Level of each meter after it: units of a bucket, or calls."""
    retry_after_us: int
    """0: admitted. Otherwise the time after which the same call would be admitted."""
    refused: int
    """Index of the meter that refused. -1: admitted."""


class CounterStore(Protocol):
    """Store of counters. A call draws from all its meters, or from none."""

    @property
    def timeouts(self) -> int:
        """Number of operations that waited for a shared server until the timeout."""
        ...

    async def take(self, meters: Sequence[Meter], tokens: int, lease_id: str) -> TakeResult:
        """Draw one request, `tokens` tokens and one concurrent call from the meters of that kind.

        More tokens than the limit are admitted by an empty bucket, and leave a debt.
        """
        ...

    async def peek(self, meters: Sequence[Meter]) -> Sequence[int]:
        """Return the current level of each meter, and draw nothing."""
        ...

    def settle(
        self, meters: Sequence[Meter], lease_id: str, *, requests: int = 0, tokens: int = 0
    ) -> None:
        """Release the concurrent call, and draw the difference to what was taken.

        A negative difference lowers the level of a bucket, but not below zero.
        """
        ...

    def renew(self, meters: Sequence[Meter], lease_id: str) -> None:
        """Renew the lease of a running call."""
        ...


class LocalCounters:
    """Counters of one process. Idle ones are removed."""

    timeouts = 0
    """Always 0: no operation waits."""

    def __init__(self, clock: Clock, *, lease_s: float = LEASE_S) -> None:
        self._clock = clock
        self._lease_us = round(lease_s * 1e6)
        self._counters: OrderedDict[str, _Counter] = OrderedDict()
        self._added = 0

    def __len__(self) -> int:
        return len(self._counters)

    async def take(self, meters: Sequence[Meter], tokens: int, lease_id: str) -> TakeResult:
        """Draw from all meters, or from none. See `CounterStore`."""
        now = self._now_us()
        wait, refused = 0, -1
        asked: list[tuple[_Counter, int]] = []
        for index, (key, kind, limit) in enumerate(meters):
            counter = self._counter(key, kind)
            amount = tokens if kind is MeterKind.TOKENS else 1
            needed = counter.retry_after_us(limit, amount, now)
            if needed > wait:
                wait, refused = needed, index
            asked.append((counter, amount))
        if refused < 0:
            ends = now + self._lease_us
            for counter, amount in asked:
                counter.draw(amount, lease_id, ends)
        if self._added:
            self._remove_idle(now)
        return TakeResult([counter.level for counter, _ in asked], wait, refused)

    async def peek(self, meters: Sequence[Meter]) -> Sequence[int]:
        """Return the level of each meter. See `CounterStore`."""
        now = self._now_us()
        levels = []
        for key, _, limit in meters:
            counter = self._counters.get(key)
            if counter is not None:
                counter.retry_after_us(limit, 0, now)
            levels.append(0 if counter is None else counter.level)
        return levels

    def settle(
        self, meters: Sequence[Meter], lease_id: str, *, requests: int = 0, tokens: int = 0
    ) -> None:
        """Settle what `take` drew. See `CounterStore`."""
        now = self._now_us()
        for key, kind, limit in meters:
            amount = requests if kind is MeterKind.REQUESTS else tokens
            if amount or kind is MeterKind.CALLS:
                self._counter(key, kind).settle(limit, amount, lease_id, now)

    def renew(self, meters: Sequence[Meter], lease_id: str) -> None:
        """Renew the lease of a running call. See `CounterStore`."""
        now = self._now_us()
        for key, kind, _ in meters:
            if kind is MeterKind.CALLS:
                self._counter(key, kind).draw(1, lease_id, now + self._lease_us)

    def _counter(self, key: str, kind: MeterKind) -> _Counter:
        counter = self._counters.get(key)
        if counter is None:
            self._added += 1
            counter = self._counters[key] = (
                _RunningCalls() if kind is MeterKind.CALLS else _Bucket()
            )
        else:
            self._counters.move_to_end(key)
        return counter

    def _remove_idle(self, now: int) -> None:
        """Check the least recently used counters."""
        counters, added, self._added = self._counters, self._added, 0
        for _ in range(min(REMOVALS_PER_NEW * added, len(counters))):
            key, counter = next(iter(counters.items()))
            if counter.idle(now):
                del counters[key]
            else:
                counters.move_to_end(key)

    def _now_us(self) -> int:
        return round(self._clock.now() * 1e6)


class _Bucket:
    """Leaky bucket of a rate limit."""

    __slots__ = ("_at", "_limit", "level")

    def __init__(self) -> None:
        self.level = 0
        self._at = 0
        self._limit = 1

    def retry_after_us(self, limit: int, amount: int, now: int) -> int:
        """Return the time until `amount`, or at most the whole limit, can be drawn."""
        self._drain(limit, now)
        excess = self.level - (limit - min(amount, limit)) * PERIOD_US
        return -(-excess // limit) if excess > 0 else 0

    def draw(self, amount: int, lease_id: str, ends: int) -> None:  # noqa: ARG002 - for calls
        """Draw `amount`."""
        self.level += amount * PERIOD_US

    def settle(self, limit: int, amount: int, lease_id: str, now: int) -> None:  # noqa: ARG002
        """Draw `amount`, which may be negative. The level stays at least zero."""
        self._drain(limit, now)
        self.level = max(0, self.level + amount * PERIOD_US)

    def idle(self, now: int) -> bool:
        """Return whether everything has drained, so that removing the bucket changes nothing."""
        return self.level <= (now - self._at) * self._limit

    def _drain(self, limit: int, now: int) -> None:
        level = self.level - (now - self._at) * self._limit
        self.level = max(0, level)
        self._at = now
        self._limit = limit


class _RunningCalls:
    """In-flight calls of a concurrency limit: expiry time by lease ID."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}

    @property
    def level(self) -> int:
        """Number of calls."""
        return len(self._ends)

    def retry_after_us(self, limit: int, amount: int, now: int) -> int:  # noqa: ARG002 - for buckets
        """Return 0 if a call may start, otherwise the retry time."""
        if len(self._ends) >= limit:
            self._expire(now)
        return 0 if len(self._ends) < limit else CALL_RETRY_AFTER_US

    def draw(self, amount: int, lease_id: str, ends: int) -> None:  # noqa: ARG002
        """Count a call until `ends`, or renew its lease."""
        self._ends[lease_id] = ends

    def settle(self, limit: int, amount: int, lease_id: str, now: int) -> None:  # noqa: ARG002
        """Remove a call."""
        self._ends.pop(lease_id, None)

    def idle(self, now: int) -> bool:
        """Return whether no lease is left, so that removing the counter changes nothing."""
        self._expire(now)
        return not self._ends

    def _expire(self, now: int) -> None:
        """Remove calls whose lease has expired."""
        if any(ends <= now for ends in self._ends.values()):
            self._ends = {lease: ends for lease, ends in self._ends.items() if ends > now}


_Counter: TypeAlias = _Bucket | _RunningCalls
