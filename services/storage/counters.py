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
from typing import NamedTuple, Protocol, TypeVar

from services.clock import Clock

PERIOD_US = 60_000_000
"""Rates are per minute."""

LIMIT_MAX = 100_000_000
"""The highest limit. Keeps levels below 2**53, as far as every store counts exactly."""

LEASE_S = 60.0
"""How long a concurrent call keeps its place without being renewed."""

SLOT_WAIT_US = 1_000_000
"""When to come back for a place: nobody knows when a running call ends."""

FORGET_STEP = 2
"""Idle counters that may be forgotten for each new one: with two, memory shrinks again."""


class Kind(Enum):
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
    kind: Kind
    """In which unit."""
    limit: int
    """How much is allowed, in [1, `LIMIT_MAX`]."""


class Verdict(NamedTuple):
    """What became of an act."""

    levels: Sequence[int]
    """Each meter's level after it: units of a bucket, or calls."""
    wait_us: int
    """0: admitted. Else the time after which the same act is admitted if nothing else happens."""
    refused: int
    """The index of the meter that asks for this wait; -1: none."""


class CounterStore(Protocol):
    """Counts. All meters of an act are drawn from together, or none is."""

    async def take(self, meters: Sequence[Meter], tokens: int, lease_id: str) -> Verdict:
        """Draws one request, `tokens` tokens and one place, each where a meter is of its kind.

        More tokens than a limit wait for all of it, and leave a debt.
        """
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


def wait_us(meter: Meter, level: int, tokens: int) -> int:
    """How long a call that needs `tokens` has to wait while the meter is at `level`."""
    if meter.kind is Kind.CALLS:
        return 0 if level < meter.limit else SLOT_WAIT_US
    amount = 1 if meter.kind is Kind.REQUESTS else min(tokens, meter.limit)
    excess = level - (meter.limit - amount) * PERIOD_US
    return -(-excess // meter.limit) if excess > 0 else 0


class LocalCounters:
    """The counters of one process. Idle ones are forgotten."""

    def __init__(self, clock: Clock, *, lease_s: float = LEASE_S) -> None:
        self._clock = clock
        self._lease_us = round(lease_s * 1e6)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._places: OrderedDict[str, _Places] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets) + len(self._places)

    async def take(self, meters: Sequence[Meter], tokens: int, lease_id: str) -> Verdict:
        """Draws from all meters, or from none. See `CounterStore`."""
        now = self._now_us()
        levels = [self._level(meter, now) for meter in meters]
        wait, refused = 0, -1
        for index, meter in enumerate(meters):
            needed = wait_us(meter, levels[index], tokens)
            if needed > wait:
                wait, refused = needed, index
        if refused < 0:
            for index, meter in enumerate(meters):
                if meter.kind is Kind.CALLS:
                    levels[index] = self._occupy(meter, lease_id, now)
                else:
                    amount = 1 if meter.kind is Kind.REQUESTS else tokens
                    levels[index] = self._draw(meter, amount, levels[index], now)
        return Verdict(levels, wait, refused)

    def settle(
        self, meters: Sequence[Meter], lease_id: str, *, requests: int = 0, tokens: int = 0
    ) -> None:
        """Ends what `take` began. See `CounterStore`."""
        now = self._now_us()
        for meter in meters:
            if meter.kind is Kind.CALLS:
                if places := self._places.get(meter.key):
                    places.pop(lease_id, None)
            elif amount := requests if meter.kind is Kind.REQUESTS else tokens:
                self._draw(meter, amount, self._level(meter, now), now)

    def renew(self, meters: Sequence[Meter], lease_id: str) -> None:
        """Keeps a running call's places. See `CounterStore`."""
        now = self._now_us()
        for meter in meters:
            if meter.kind is Kind.CALLS:
                self._occupy(meter, lease_id, now)

    def _level(self, meter: Meter, now: int) -> int:
        if meter.kind is Kind.CALLS:
            places = self._places.get(meter.key)
            if places is None:
                return 0
            if len(places) >= meter.limit:
                places.expire(now)
            return len(places)
        bucket = self._buckets.get(meter.key)
        return 0 if bucket is None else bucket.drained(now)

    def _draw(self, meter: Meter, amount: int, level: int, now: int) -> int:
        bucket = self._buckets.get(meter.key)
        if bucket is None:
            _forget(self._buckets, now)
            bucket = self._buckets[meter.key] = _Bucket()
        else:
            self._buckets.move_to_end(meter.key)
        bucket.level = max(0, level + amount * PERIOD_US)
        bucket.at = now
        bucket.limit = meter.limit
        return bucket.level

    def _occupy(self, meter: Meter, lease_id: str, now: int) -> int:
        places = self._places.get(meter.key)
        if places is None:
            _forget(self._places, now)
            places = self._places[meter.key] = _Places()
        else:
            self._places.move_to_end(meter.key)
        places[lease_id] = now + self._lease_us
        return len(places)

    def _now_us(self) -> int:
        return round(self._clock.now() * 1e6)


class _Counter(Protocol):
    """Something that may have nothing to remember any more."""

    def idle(self, now: int) -> bool:
        """Whether forgetting it changes nothing."""
        ...


C = TypeVar("C", bound=_Counter)


def _forget(counters: OrderedDict[str, C], now: int) -> None:
    """Looks at those that were not used for longest."""
    for _ in range(min(FORGET_STEP, len(counters))):
        key, counter = next(iter(counters.items()))
        if counter.idle(now):
            del counters[key]
        else:
            counters.move_to_end(key)


class _Bucket:
    """What was drawn and has not drained yet."""

    __slots__ = ("at", "level", "limit")

    def __init__(self) -> None:
        self.level = 0
        self.at = 0
        self.limit = 1

    def drained(self, now: int) -> int:
        """The level now."""
        return max(0, self.level - (now - self.at) * self.limit)

    def idle(self, now: int) -> bool:
        """Whether forgetting it changes nothing."""
        return self.drained(now) == 0


class _Places(dict[str, int]):
    """Lease -> when it ends, in microseconds."""

    __slots__ = ()

    def expire(self, now: int) -> None:
        """Takes their places from those who have not renewed them."""
        for lease_id in [lease_id for lease_id, ends in self.items() if ends <= now]:
            del self[lease_id]

    def idle(self, now: int) -> bool:
        """Whether forgetting it changes nothing."""
        return all(ends <= now for ends in self.values())
