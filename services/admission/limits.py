"""Limits on requests, tokens and concurrent calls.

A call takes from limits twice: at its admission, by the rules on keys and models and by the
key's own limits; then at each attempt, by the rules on channels, where a refusal means
that the next channel is tried. Both times it takes from all limits that apply or from none, so
that a refused call has taken nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.admission.leases import Lease, LimitLeases
from services.config.limits import LimitConfig
from services.storage.counters import Meter, MeterKind

PLANS_MAX = 20_000
"""The most subjects whose limits are cached."""

EACH = "*"


class KeyLimits(NamedTuple):
    """The limits of a key. None: no limit."""

    rpm: int | None = None
    """Requests per minute."""
    tpm: int | None = None
    """Tokens per minute."""
    concurrency: int | None = None
    """Concurrent calls."""


UNLIMITED = KeyLimits()


class Subject(NamedTuple):
    """Properties of a call by which limits apply."""

    key: str
    """The key's ID."""
    model: str
    """The public name of the model, without a derived suffix."""
    channel: str = ""
    """Set for an attempt at that channel, empty for the call as a whole."""
    own: KeyLimits = UNLIMITED
    """The key's own limits, over all models. They take precedence over rules."""


class Limits:
    """The limits of one configuration. Leases taken before a reload count after it."""

    def __init__(self, rules: Sequence[LimitConfig], leases: LimitLeases) -> None:
        self._leases = leases
        self._call_rules = [rule for rule in rules if not rule.channel]
        self._channel_rules = [rule for rule in rules if rule.channel]
        self._plans: dict[Subject, Sequence[Meter]] = {}

    async def take(self, subject: Subject, tokens: int) -> Lease:
        """Take a request, `tokens` tokens and a slot from all limits that apply.

        Raises LimitExceeded; then nothing was taken.
        """
        plan = self._plans.get(subject)
        if plan is None:
            plan = self._plan(subject)
        return await self._leases.take(plan, tokens) if plan else self._leases.unlimited

    async def peek_headers(self, subject: Subject) -> Mapping[str, str]:
        """Return the `x-ratelimit-…` headers of an answer that takes nothing.

        Without a limit there are none: no number would be true.
        """
        return await self._leases.peek_headers(self._plans.get(subject) or self._plan(subject))

    def _plan(self, subject: Subject) -> Sequence[Meter]:
        if len(self._plans) >= PLANS_MAX:
            self._plans.clear()
        plan = self._plans[subject] = tuple(self._meters(subject))
        return plan

    def _meters(self, subject: Subject) -> Sequence[Meter]:
        """Return one meter per counter, with the limit of the most specific rule.

        Of equally specific rules the last decides.
        """
        rules = list(self._channel_rules if subject.channel else self._call_rules)
        if not subject.channel and subject.own != UNLIMITED:
            rpm, tpm, concurrency = subject.own
            rules.append(LimitConfig(key=subject.key, rpm=rpm, tpm=tpm, concurrency=concurrency))
        best: dict[str, tuple[int, Meter]] = {}
        for rule in rules:
            scope = _scope(rule, subject)
            if scope is None:
                continue
            names, counted = scope
            for kind, limit in _limits(rule):
                key = f"{kind.value}:{counted}"
                if key not in best or best[key][0] <= names:
                    best[key] = (names, Meter(key, kind, limit))
        return [meter for _, meter in best.values()]


def _scope(rule: LimitConfig, subject: Subject) -> tuple[int, str] | None:
    """Return how specific the rule is, and what it counts; None where it does not apply."""
    names = 0
    counted = []
    for pattern, name, dimension in (
        (rule.key, subject.key, "key"),
        (rule.model, subject.model, "model"),
        (rule.channel, subject.channel, "channel"),
    ):
        if pattern not in {"", EACH, name}:
            return None
        if pattern:
            names += pattern != EACH
            counted.append(f"{dimension}={name}")
    return names, ",".join(counted)


def _limits(rule: LimitConfig) -> Sequence[tuple[MeterKind, int]]:
    limits = (
        (MeterKind.REQUESTS, rule.rpm),
        (MeterKind.TOKENS, rule.tpm),
        (MeterKind.CALLS, rule.concurrency),
    )
    return [(kind, limit) for kind, limit in limits if limit is not None]
