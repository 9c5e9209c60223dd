"""How the channels are doing: by channel, model and key, in this process only.

Twice something follows from it. A half-open breaker says whether a place is asked at all:

    closed ──failures in a row──► open ──cool-down over──► half-open ──success──► closed
                                    ▲                          │
                                    └──────────failure─────────┘

A provider's Retry-After opens it at once for as long as it says. And a score says how much
of its weight a place gets among those of its tier:

    score = (share of its calls that did well)² x (latency of the tier's fastest / its own)

Both shares are means of the last minutes, in which the past counts less and less, and of
what is presumed where little is known: a place is as good as any until it shows otherwise,
and again some time after it did. None falls below `SCORE_MIN`, so that each is asked now
and then, which is how its recovery is noticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from services.clock import Clock
from services.config import Secret
from services.errors import UpstreamError
from services.providers.base import Target
from services.routing.decay import DecayedMean

COOL_DOWN_MAX_S = 300.0
"""How long a breaker stays open at most."""

SCORE_MIN = 0.05
"""What the worst place keeps of its weight."""
DOUBT = 5.0
"""For how many calls, seen just now, the presumption counts: one failure is not yet a habit."""
ALIKE_S = 0.1
"""Latencies that differ by much less are alike: it is added to both before they are compared."""


_Place: TypeAlias = tuple[str, str, Secret]


@dataclass(slots=True)
class _Record:
    """What is remembered of a place."""

    errors: DecayedMean = field(default_factory=DecayedMean)
    """1 for every call that it failed, 0 for the others."""
    latency_s: DecayedMean = field(default_factory=DecayedMean)
    """How long its answers took to begin."""
    failures: int = 0
    """In a row."""
    openings: int = 0
    """Of the breaker, in a row."""
    open_until: float = 0.0
    """0: the breaker is closed."""
    trying: bool = False
    """Whether a call tries the place, while the breaker is half-open."""


class ChannelHealth:
    """Remembers how calls went."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[_Place, _Record] = {}

    def available(self, target: Target) -> bool:
        """Whether a call may go there: the breaker is closed, or half-open and free."""
        record = self._records.get(_place(target))
        if record is None or not record.open_until:
            return True
        return self._clock.now() >= record.open_until and not record.trying

    def best_state(self, targets: Iterable[Target]) -> int:
        """The best of the breakers, for those who watch: 0 closed, 1 half-open, 2 open."""
        return min(map(self.state, targets), default=2)

    def state(self, target: Target) -> int:
        """The breaker: 0 closed, 1 half-open, 2 open."""
        record = self._records.get(_place(target))
        if record is None or not record.open_until:
            return 0
        return 2 if self._clock.now() < record.open_until else 1

    def rests_s(self, target: Target) -> float:
        """How long the breaker stays open yet; 0 where it is not."""
        record = self._records.get(_place(target))
        return max(0.0, record.open_until - self._clock.now()) if record else 0.0

    def scores(self, tier: Sequence[Target]) -> Sequence[float]:
        """What each keeps of its weight against the others: in [`SCORE_MIN`, 1]."""
        fastest_s = min(filter(None, map(self.latency_s, tier)), default=0.0)
        return [self._score(target, fastest_s) for target in tier]

    def error_rate(self, target: Target) -> float:
        """The share of calls that fail there, as far as is believed. In [0, 1]."""
        record = self._records.get(_place(target))
        if record is None:
            return 0.0
        return record.errors.believed(self._clock.now(), presumed=0.0, doubt=DOUBT)

    def latency_s(self, target: Target) -> float:
        """How long an answer takes to begin there, by the last ones; 0 where none has."""
        record = self._records.get(_place(target))
        return (record.latency_s.value() or 0.0) if record else 0.0

    def begin(self, target: Target) -> None:
        """A call goes there now. `succeeded`, `failed` or `abandoned` must follow."""
        record = self._records.get(_place(target))
        if record is not None and record.open_until:
            record.trying = True

    def succeeded(self, target: Target, took_s: float | None = None) -> None:
        """The call began to answer, after `took_s` if that tells anything: the breaker closes."""
        record, now = self._record(target), self._clock.now()
        record.errors.add(0.0, now)
        if took_s is not None:
            record.latency_s.add(took_s, now)
        record.failures = record.openings = 0
        record.open_until, record.trying = 0.0, False

    def broke_off(self, target: Target, error: UpstreamError) -> None:
        """The answer that had begun there was not brought to its end."""
        if error.row.channel_fault:
            self._record(target).errors.add(1.0, self._clock.now())

    def abandoned(self, target: Target) -> None:
        """The call told nothing about the channel: the caller left, or was at fault."""
        record = self._records.get(_place(target))
        if record is not None:
            record.trying = False

    def failed(self, target: Target, error: UpstreamError) -> None:
        """The channel failed the call."""
        if not error.row.channel_fault:
            self.abandoned(target)
            return
        record, now = self._record(target), self._clock.now()
        record.errors.add(1.0, now)
        was_half_open = record.trying
        record.trying = False
        record.failures += 1
        open_for_s = error.retry_after_s or error.row.opens_for_s
        rule = target.channel.breaker
        if record.failures >= rule.failures or was_half_open:
            backed_off = min(rule.cooldown_s * 2**record.openings, COOL_DOWN_MAX_S)
            record.openings += 1
            open_for_s = max(open_for_s, backed_off)
        if open_for_s:
            record.open_until = now + min(open_for_s, COOL_DOWN_MAX_S)

    def keep(self, targets: Iterable[Target]) -> None:
        """Only these are asked from now on: what is known of others may be forgotten."""
        kept = set(map(_place, targets))
        self._records = {place: self._records[place] for place in kept & self._records.keys()}

    def _record(self, target: Target) -> _Record:
        return self._records.setdefault(_place(target), _Record())

    def _score(self, target: Target, fastest_s: float) -> float:
        record = self._records.get(_place(target))
        if record is None:
            return 1.0
        now = self._clock.now()
        fails = record.errors.believed(now, presumed=0.0, doubt=DOUBT)
        latency_s = record.latency_s.believed(now, presumed=fastest_s, doubt=DOUBT)
        quickness = (fastest_s + ALIKE_S) / (latency_s + ALIKE_S)
        return max(SCORE_MIN, (1 - fails) ** 2 * quickness)


def _place(target: Target) -> _Place:
    # By the key itself: one that is new after a reload starts with a clean record.
    return target.channel.name, target.model, target.key
