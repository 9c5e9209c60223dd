"""How the channels are doing: a half-open breaker for each channel, model and key.

closed ──failures in a row──► open ──cool-down over──► half-open ──success──► closed
                                ▲                          │
                                └──────────failure─────────┘

A provider's Retry-After opens the breaker at once for as long as it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.clock import Clock
from services.config import Secret
from services.errors import UpstreamError
from services.providers.base import Target

COOL_DOWN_MAX_S = 300.0
"""How long a breaker stays open at most."""
CREDENTIALS_COOL_DOWN_S = 60.0
"""How long a key is left alone that the provider refuses."""

LATENCY_SHARE = 0.2
"""What the latest answer counts among those before it."""

# What a failure says about the channel; anything absent counts as one failure.
_SAYS_NOTHING = frozenset({reasons.ERROR_REASON_MODEL_NOT_FOUND})
_OPENS_FOR_S: Mapping[reasons.ErrorReason.ValueType, float] = {
    reasons.ERROR_REASON_UPSTREAM_AUTH_FAILED: CREDENTIALS_COOL_DOWN_S,
    reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED: 1.0,
}


_Place: TypeAlias = tuple[str, str, Secret]


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    openings: int = 0
    open_until: float = 0.0
    trying: bool = False


class Health:
    """Remembers how calls to each (channel, model, key) went. In this process only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._breakers: dict[_Place, _Breaker] = {}
        self._latencies_s: dict[_Place, float] = {}

    def available(self, target: Target) -> bool:
        """Whether a call may go there: the breaker is closed, or half-open and free."""
        breaker = self._breakers.get(_key(target))
        if breaker is None or not breaker.open_until:
            return True
        return self._clock.now() >= breaker.open_until and not breaker.trying

    def best_state(self, targets: Iterable[Target]) -> int:
        """The best of the breakers, for those who watch: 0 closed, 1 half-open, 2 open."""
        return min(map(self.state, targets), default=2)

    def state(self, target: Target) -> int:
        """The breaker: 0 closed, 1 half-open, 2 open."""
        breaker = self._breakers.get(_key(target))
        if breaker is None or not breaker.open_until:
            return 0
        return 2 if self._clock.now() < breaker.open_until else 1

    def begin(self, target: Target) -> None:
        """A call goes there now. `succeeded`, `failed` or `abandoned` must follow."""
        breaker = self._breakers.get(_key(target))
        if breaker is not None and breaker.open_until:
            breaker.trying = True

    def succeeded(self, target: Target, took_s: float = 0.0) -> None:
        """The call began to answer after `took_s`: the breaker closes."""
        key = _key(target)
        self._breakers.pop(key, None)
        before = self._latencies_s.get(key, took_s)
        self._latencies_s[key] = before + LATENCY_SHARE * (took_s - before)

    def latency_s(self, target: Target) -> float:
        """How long an answer takes to begin there, by the last ones; 0 where none has."""
        return self._latencies_s.get(_key(target), 0.0)

    def abandoned(self, target: Target) -> None:
        """The call told nothing about the channel: the caller left, or was at fault."""
        breaker = self._breakers.get(_key(target))
        if breaker is not None:
            breaker.trying = False

    def failed(self, target: Target, error: UpstreamError) -> None:
        """The channel failed the call."""
        if error.reason in _SAYS_NOTHING or not error.retryable:
            self.abandoned(target)
            return
        breaker = self._breakers.setdefault(_key(target), _Breaker())
        was_half_open = breaker.trying
        breaker.trying = False
        breaker.failures += 1
        open_for_s = error.retry_after_s or _OPENS_FOR_S.get(error.reason, 0.0)
        rule = target.channel.breaker
        if breaker.failures >= rule.failures or was_half_open:
            backed_off = min(rule.cooldown_s * 2**breaker.openings, COOL_DOWN_MAX_S)
            breaker.openings += 1
            open_for_s = max(open_for_s, backed_off)
        if open_for_s:
            breaker.open_until = self._clock.now() + min(open_for_s, COOL_DOWN_MAX_S)


def _key(target: Target) -> _Place:
    # By the key itself: one that is new after a reload starts with a clean record.
    return target.channel.name, target.model, target.key
