"""Limits in this process: leaky buckets for rates, leases for concurrent calls.

A rate is the generic cell rate algorithm with a burst of one minute's allowance. A
bucket's level is what was drawn and has not drained yet, in units of which one request
(or token) is `PERIOD_US` and of which `limit` drain every microsecond: all integers, so
that "not yet" is exact. In any window the admitted are at most `limit` + rate x window.
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
"""The highest limit. Keeps levels below 2**53, as far as every store counts exactly."""

LEASE_S = 60.0
"""How long a concurrent call keeps its place without being renewed."""

CALL_RETRY_AFTER_US = 1_000_000
"""When to come back for a place: nobody knows when a running call ends."""

FORGET_STEP = 2
"""Idle counters that may be forgotten for each new one: with two, memory shrinks again."""


class MeterKind(Enum):
    """What a meter counts. The value is its name in answers."""

    REQUESTS = "requests"
    """Calls in a minute."""
    TOKENS = "tokens"
    """Tokens in a minute."""
    CALLS = "concurrency"
    """Calls at a time."""


class Meter(NamedTuple):
    """One limit on one thing."""

    key: str
    """What is counted: equal keys are one counter."""
    kind: MeterKind
    """In which unit."""
    limit: int
    """How much is allowed, in [1, `LIMIT_MAX`]."""


class TakeResult(NamedTuple):
    """What became of an act."""

    levels: Sequence[int]
    """Each meter's level after it: units of a bucket, or calls."""
    retry_after_us: int
    """0: admitted. Else the time after which the same act is admitted if nothing else happens."""
    refused: int
    """The index of the meter that asks for this wait; -1: none."""


class CounterStore(Protocol):
    """Counts. All meters of an act are drawn from together, or none is."""

    @property
    def timeouts(self) -> int:
        """How many acts have waited in vain for a server that others count at, too."""
        ...

    async def take(self, meters: Sequence[Meter], tokens: int, lease_id: str) -> TakeResult:
        """Draws one request, `tokens` tokens and one place, each where a meter is of its kind.

        More tokens than a limit wait for all of it, and leave a debt.
        """
        ...

    async def peek(self, meters: Sequence[Meter]) -> Sequence[int]:
        """Each meter's level at the moment. Nothing is drawn."""
        ...

    def settle(
        self, meters: Sequence[Meter], lease_id: str, *, requests: int = 0, tokens: int = 0
    ) -> None:
        """Gives the place back, and draws more (or, below 0, less) than was taken.

        A bucket gets back what was not needed, but is never more than empty: of what has
        drained meanwhile nothing is left to give.
        """
        ...

    def renew(self, meters: Sequence[Meter], lease_id: str) -> None:
        """The call is still running: it keeps its place for another lease."""
        ...


class LocalCounters:
    """The counters of one process. Idle ones are forgotten."""

    timeouts = 0
    """Nobody waits for anything here."""

    def __init__(self, clock: Clock, *, lease_s: float = LEASE_S) -> None:
        self._clock = clock
        self._lease_us = round(lease_s * 1e6)
        self._counters: OrderedDict[str, _Counter] = OrderedDict()
        self._added = 0

    def __len__(self) -> int:
        return len(self._counters)

    async def take(self, meters: Sequence[Meter], tokens: int, lease_id: str) -> TakeResult:
        """Draws from all meters, or from none. See `CounterStore`."""
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
            self._forget(now)
        return TakeResult([counter.level for counter, _ in asked], wait, refused)

    async def peek(self, meters: Sequence[Meter]) -> Sequence[int]:
        """Each meter's level now. See `CounterStore`."""
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
        """Ends what `take` began. See `CounterStore`."""
        now = self._now_us()
        for key, kind, limit in meters:
            amount = requests if kind is MeterKind.REQUESTS else tokens
            if amount or kind is MeterKind.CALLS:
                self._counter(key, kind).settle(limit, amount, lease_id, now)

    def renew(self, meters: Sequence[Meter], lease_id: str) -> None:
        """Keeps a running call's places. See `CounterStore`."""
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

    def _forget(self, now: int) -> None:
        """Looks at those that were not used for longest. None is in use at the moment."""
        counters, added, self._added = self._counters, self._added, 0
        for _ in range(min(FORGET_STEP * added, len(counters))):
            key, counter = next(iter(counters.items()))
            if counter.idle(now):
                del counters[key]
            else:
                counters.move_to_end(key)

    def _now_us(self) -> int:
        return round(self._clock.now() * 1e6)


class _Bucket:
    """What was drawn and has not drained yet."""

    __slots__ = ("_at", "_limit", "level")

    def __init__(self) -> None:
        self.level = 0
        self._at = 0
        self._limit = 1

    def retry_after_us(self, limit: int, amount: int, now: int) -> int:
        """How long until there is room for `amount`, or for all of the limit if that is less."""
        self._drain(limit, now)
        excess = self.level - (limit - min(amount, limit)) * PERIOD_US
        return -(-excess // limit) if excess > 0 else 0

    def draw(self, amount: int, lease_id: str, ends: int) -> None:  # noqa: ARG002 - of places
        """Draws `amount`."""
        self.level += amount * PERIOD_US

    def settle(self, limit: int, amount: int, lease_id: str, now: int) -> None:  # noqa: ARG002
        """Draws `amount` more, or less, but never more than was drawn."""
        self._drain(limit, now)
        self.level = max(0, self.level + amount * PERIOD_US)

    def idle(self, now: int) -> bool:
        """Whether all has drained."""
        return self.level <= (now - self._at) * self._limit

    def _drain(self, limit: int, now: int) -> None:
        level = self.level - (now - self._at) * self._limit
        self.level = max(0, level)
        self._at = now
        self._limit = limit


class _RunningCalls:
    """Who runs, by lease, and until when."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}

    @property
    def level(self) -> int:
        """How many there are."""
        return len(self._ends)

    def retry_after_us(self, limit: int, amount: int, now: int) -> int:  # noqa: ARG002 - of buckets
        """How long until it is worth to ask again for a place."""
        if len(self._ends) >= limit:
            self._expire(now)
        return 0 if len(self._ends) < limit else CALL_RETRY_AFTER_US

    def draw(self, amount: int, lease_id: str, ends: int) -> None:  # noqa: ARG002
        """Takes a place, or keeps it for longer."""
        self._ends[lease_id] = ends

    def settle(self, limit: int, amount: int, lease_id: str, now: int) -> None:  # noqa: ARG002
        """Gives the place back."""
        self._ends.pop(lease_id, None)

    def idle(self, now: int) -> bool:
        """Whether nobody runs, or nobody has said so for a lease's time."""
        self._expire(now)
        return not self._ends

    def _expire(self, now: int) -> None:
        """Takes their places from those who have not renewed them."""
        if any(ends <= now for ends in self._ends.values()):
            self._ends = {lease: ends for lease, ends in self._ends.items() if ends > now}


_Counter: TypeAlias = _Bucket | _RunningCalls
