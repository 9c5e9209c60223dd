"""Health of channels, by channel, model and key, as this process alone has seen it.

Two decisions follow from it. A circuit breaker decides whether a target gets calls at all:

    closed ──failures in a row──► open ──cool-down over──► half-open ──success──► closed
                                    ▲                          │
                                    └──────────failure─────────┘

A provider's Retry-After opens the breaker at once for as long as it says. And a score decides how
much of its weight a target gets among those of its tier:

    score = (share of its calls that succeeded)² x (latency of the tier's fastest / its own)

Both factors are means of the last minutes, in which older calls count less, together with a prior:
a target is as good as any other until its calls show otherwise, and again some time after they did.
No score falls below `SCORE_MIN`, so that each target gets a call now and then, which shows its
recovery.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp2
from typing import TypeAlias

from services.clock import Clock
from services.errors import UpstreamError
from services.providers.base import Target
from services.storage.channel_switches import Disablement

COOL_DOWN_MAX_S = 300.0
"""The longest time that a breaker stays open."""
DOUBLINGS_MAX = 64
"""The most doublings of a cool-down, which is at its longest long before. An outage may fail
thousands of calls in a row, and 2 to that power is too large for a float."""

SCORE_MIN = 0.05
"""The lowest score."""
PRIOR_CALLS = 5.0
"""The weight of the prior, in calls made just now: one failure says little."""
LACKING_S = 600.0
"""How long a channel gets no requests for Responses after its server had none."""
STREAMED_FOR_S = 600.0
"""How long whole answers are requested as streams after one was late."""
LATENCY_FLOOR_S = 0.1
"""Added to both latencies before they are compared: much smaller differences do not count."""

HALF_LIFE_S = 60.0
"""The age at which an observation counts half as much as a new one."""

_TargetKey: TypeAlias = tuple[str, str, str]


class DecayedMean:
    """Mean of recent observations. Times are of one clock, in seconds."""

    __slots__ = ("_at", "_sum", "_weight")

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0
        self._at = 0.0

    def add(self, value: float, now: float) -> None:
        """Add an observation. `now` never goes back."""
        decay = exp2((self._at - now) / HALF_LIFE_S)
        self._sum = self._sum * decay + value
        self._weight = self._weight * decay + 1
        self._at = now

    def value(self) -> float | None:
        """Return the mean of the observations; None without any."""
        return self._sum / self._weight if self._weight else None

    def estimate(self, now: float, *, prior: float, prior_weight: float) -> float:
        """Return the mean together with `prior_weight` new observations of the value `prior`.

        Old observations thus lose against the prior.
        """
        decay = exp2((self._at - now) / HALF_LIFE_S)
        return (self._sum * decay + prior * prior_weight) / (self._weight * decay + prior_weight)


@dataclass(slots=True)
class _TargetState:
    """Breaker and statistics of one target."""

    errors: DecayedMean = field(default_factory=DecayedMean)
    """1 for every call that failed, 0 for the others."""
    latency_s: DecayedMean = field(default_factory=DecayedMean)
    """The time until an answer began."""
    failures: int = 0
    """Failures in a row."""
    openings: int = 0
    """Openings of the breaker in a row."""
    open_until: float = 0.0
    """0: the breaker is closed."""
    is_probing: bool = False
    """Whether a call is in flight that tries the target while the breaker is half-open."""


class ChannelHealth:
    """Breakers, error rates and latencies of all targets."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        """Clock of all observations."""
        self.disabled: Mapping[str, Disablement] = {}
        """Channels that get no calls, by name. `ChannelSwitches` replaces them."""
        self.unwell: set[_TargetKey] = set()
        """Targets whose latest call failed: the breakers of all others are closed."""
        self.late_targets: dict[_TargetKey, float] = {}
        """Targets whose whole answers were late, and until when these are requested as streams."""
        self._states: defaultdict[_TargetKey, _TargetState] = defaultdict(_TargetState)
        self._lacking_until: dict[str, float] = {}

    def available(self, target: Target) -> bool:
        """Whether a call may be sent: the breaker is closed, or half-open without a probe."""
        state = self._states.get(target.identity)
        if state is None or not state.open_until:
            return True
        return self.clock.now() >= state.open_until and not state.is_probing

    def best_breaker_state(self, targets: Iterable[Target]) -> int:
        """Return the best of the breakers, for metrics: 0 closed, 1 half-open, 2 open."""
        return min(map(self.breaker_state, targets), default=2)

    def breaker_state(self, target: Target) -> int:
        """Return the state of the breaker: 0 closed, 1 half-open, 2 open."""
        state = self._states.get(target.identity)
        if state is None or not state.open_until:
            return 0
        return 2 if self.clock.now() < state.open_until else 1

    def open_for_s(self, target: Target) -> float:
        """Return how long the breaker will stay open; 0 if it is not."""
        state = self._states.get(target.identity)
        return max(0.0, state.open_until - self.clock.now()) if state else 0.0

    def scores(self, tier: Sequence[Target]) -> Sequence[float]:
        """Return the score of each target against the others: in [`SCORE_MIN`, 1]."""
        states = [self._states.get(target.identity) for target in tier]
        means_s = [state.latency_s.value() for state in states if state is not None]
        now, fastest_s = self.clock.now(), min(filter(None, means_s), default=0.0)
        return [1.0 if state is None else _score(state, now, fastest_s) for state in states]

    def error_rate(self, target: Target) -> float:
        """Return the estimated share of calls that fail. In [0, 1]."""
        state = self._states.get(target.identity)
        if state is None:
            return 0.0
        return state.errors.estimate(self.clock.now(), prior=0.0, prior_weight=PRIOR_CALLS)

    def latency_s(self, target: Target) -> float:
        """Return the mean time until an answer began, of recent calls; 0 without any."""
        state = self._states.get(target.identity)
        return (state.latency_s.value() or 0.0) if state else 0.0

    def attempt_started(self, target: Target) -> None:
        """Note that a call is sent to an unwell target. One of the next three methods follows."""
        state = self._states.get(target.identity)
        if state is not None and state.open_until:
            state.is_probing = True

    def attempt_succeeded(self, target: Target, latency_s: float | None = None) -> None:
        """Note that the call began to answer; the breaker closes.

        `latency_s` is how long that took; None where it says nothing about the target.
        """
        state, now = self._states[target.identity], self.clock.now()
        state.errors.add(0.0, now)
        if latency_s is not None:
            state.latency_s.add(latency_s, now)
        if state.failures:
            state.failures = state.openings = 0
            state.open_until, state.is_probing = 0.0, False
            self.unwell.discard(target.identity)

    def attempt_abandoned(self, target: Target) -> None:
        """Note that the call said nothing about the target: cancelled, or the caller's fault."""
        state = self._states.get(target.identity)
        if state is not None:
            state.is_probing = False

    def attempt_failed(self, target: Target, error: UpstreamError) -> None:
        """Note that the call failed before it began to answer."""
        if not _is_channel_fault(error):
            self.attempt_abandoned(target)
            return
        state, now = self._states[target.identity], self.clock.now()
        state.errors.add(1.0, now)
        # A call that began before the breaker opened says nothing new.
        is_open = now < state.open_until
        was_half_open = state.is_probing
        state.is_probing = False
        state.failures += 1
        self.unwell.add(target.identity)
        open_for_s = error.retry_after_s or error.row.opens_for_s
        rule = target.channel.breaker
        if (state.failures >= rule.failures and not is_open) or was_half_open:
            doublings = min(state.openings, DOUBLINGS_MAX)
            backed_off = min(rule.cooldown_s * 2**doublings, COOL_DOWN_MAX_S)
            state.openings += 1
            open_for_s = max(open_for_s, backed_off)
        if open_for_s:
            until = now + min(open_for_s, COOL_DOWN_MAX_S)
            state.open_until = max(state.open_until, until)

    def whole_answer_was_late(self, target: Target) -> None:
        """Note that a whole answer had not begun in the time of a first event.

        The target hangs, or its answers are long; a stream tells one from the other.
        """
        self.late_targets[target.identity] = self.clock.now() + STREAMED_FOR_S

    def prefers_stream(self, target: Target) -> bool:
        """Return whether whole answers are requested as streams."""
        until = self.late_targets.get(target.identity)
        if until is None:
            return False
        if self.clock.now() >= until:
            del self.late_targets[target.identity]
            return False
        return True

    def answer_broke_off(self, target: Target, error: UpstreamError) -> None:
        """Note that an answer failed after it had begun."""
        if _is_channel_fault(error):
            self._states[target.identity].errors.add(1.0, self.clock.now())

    def responses_are_missing(self, target: Target) -> None:
        """Note that the channel's server has no Responses: it gets chat completions for a while."""
        self._lacking_until[target.channel.name] = self.clock.now() + LACKING_S

    def lacking_responses(self) -> Container[str]:
        """Return the channels whose servers have no Responses, by their last answers."""
        if not self._lacking_until:
            return ()
        now = self.clock.now()
        return {name for name, until in self._lacking_until.items() if until > now}

    def forget_all_but(self, targets: Iterable[Target]) -> None:
        """Forget every target that is not among these: they get no calls any more."""
        kept = {target.identity for target in targets}
        for states in (self._states, self.late_targets):
            for key in states.keys() - kept:
                del states[key]
        self.unwell &= kept


def _score(state: _TargetState, now: float, fastest_s: float) -> float:
    error_rate = state.errors.estimate(now, prior=0.0, prior_weight=PRIOR_CALLS)
    latency_s = state.latency_s.estimate(now, prior=fastest_s, prior_weight=PRIOR_CALLS)
    speed = (fastest_s + LATENCY_FLOOR_S) / (latency_s + LATENCY_FLOOR_S)
    return max(SCORE_MIN, (1 - error_rate) ** 2 * speed)


def _is_channel_fault(error: UpstreamError) -> bool:
    """Whether a failure counts against the channel. No caller may end the calls of others."""
    return error.row.channel_fault and not error.is_of_request
