"""Limits on requests, tokens and concurrent calls.

A call takes from limits twice: at its admission, by the rules on keys and models and by the
key's own limits; then at each attempt, by the rules on channels, where a refusal means
that the next channel is tried. Both times it takes from all limits that apply or from none, so
that a refused call has taken nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.config.limits import LimitConfig
from services.storage.counters import Meter, MeterKind

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


class RuleMeter(NamedTuple):
    """A meter, and the rule that it is of."""

    rule: LimitConfig
    meter: Meter


class LimitRules:
    """The rules of one configuration."""

    def __init__(self, rules: Sequence[LimitConfig]) -> None:
        self.all = rules
        """The rules, in their order."""
        self._call_rules = [rule for rule in rules if not rule.channel]
        self._channel_rules = [rule for rule in rules if rule.channel]

    def meters(self, subject: Subject) -> Sequence[Meter]:
        """Return one meter per counter, with the limit of the most specific rule.

        Of equally specific rules the last decides.
        """
        return [one.meter for one in self.rule_meters(subject)]

    def rule_meters(self, subject: Subject) -> Sequence[RuleMeter]:
        """Return the same meters with their rules. Own limits of a key are the rule `own_rule`."""
        rules = list(self._channel_rules if subject.channel else self._call_rules)
        if not subject.channel and subject.own != UNLIMITED:
            rules.append(own_rule(subject))
        best: dict[str, tuple[int, RuleMeter]] = {}
        for rule in rules:
            scope = _scope(rule, subject)
            if scope is None:
                continue
            names, counted = scope
            for kind, limit in limits_of(rule):
                key = f"{kind.value}:{counted}"
                if key not in best or best[key][0] <= names:
                    best[key] = (names, RuleMeter(rule, Meter(key, kind, limit)))
        return [one for _, one in best.values()]


def own_rule(subject: Subject) -> LimitConfig:
    """Return the own limits of a subject's key as a rule."""
    rpm, tpm, concurrency = subject.own
    return LimitConfig(key=subject.key, rpm=rpm, tpm=tpm, concurrency=concurrency)


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


def limits_of(rule: LimitConfig) -> Sequence[tuple[MeterKind, int]]:
    """Return the limits of a rule by their kind."""
    limits = (
        (MeterKind.REQUESTS, rule.rpm),
        (MeterKind.TOKENS, rule.tpm),
        (MeterKind.CALLS, rule.concurrency),
    )
    return [(kind, limit) for kind, limit in limits if limit is not None]
