"""Limits with their current use, for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pomogator.operations.v1 import operations_service_pb2 as pb

from services.admission.call_plan import CallPlans
from services.admission.leases import LimitLeases
from services.admission.limits import EACH, LimitRules, Subject, limits_of
from services.config.limits import LimitConfig
from services.storage.counters import PERIOD_US, Meter, MeterKind

PLANS_MAX = 1000
"""The most plans whose limits are looked at, newest first."""
COUNTERS_MAX = 1000
"""The most counters whose use is read."""
USES_MAX = 10
"""The most counters of a limit in an answer."""

KINDS: Mapping[MeterKind, pb.LimitKind.ValueType] = {
    MeterKind.REQUESTS: pb.LIMIT_KIND_REQUESTS,
    MeterKind.TOKENS: pb.LIMIT_KIND_TOKENS,
    MeterKind.CALLS: pb.LIMIT_KIND_CONCURRENT_CALLS,
}


@dataclass(slots=True)
class _Row:
    """A limit of a rule, and its counters."""

    rule: LimitConfig
    kind: MeterKind
    limit: int
    from_key: bool
    counters: dict[str, tuple[Meter, Subject]] = field(default_factory=dict)
    """Meter and one of its subjects, by the key of the counter."""


async def list_limits(plans: CallPlans, leases: LimitLeases) -> pb.ListLimitsResponse:
    """Return the rules of the plans' configuration and the limits of their keys, with their use."""
    subjects = list(plans.subjects(PLANS_MAX))
    rows = await asyncio.to_thread(_rows, plans.limits, subjects)
    read = [meter for row in rows for meter, _ in row.counters.values()][:COUNTERS_MAX]
    levels = await leases.peek(read) if read else []
    by_key = {meter.key: level for meter, level in zip(read, levels, strict=True)}
    return pb.ListLimitsResponse(limits=[_limit(row, by_key) for row in rows])


def _rows(rules: LimitRules, subjects: Sequence[Subject]) -> Sequence[_Row]:
    rows = {
        (id(rule), kind): _Row(rule, kind, limit, from_key=False)
        for rule in rules.all
        for kind, limit in limits_of(rule)
    }
    own: dict[tuple[str, MeterKind], _Row] = {}
    for rule, subject in _named(rules):
        for named, meter in rules.rule_meters(subject):
            if named is rule:
                rows[id(rule), meter.kind].counters[meter.key] = meter, subject
    for subject in subjects:
        for rule, meter in rules.rule_meters(subject):
            row = rows.get((id(rule), meter.kind))
            if row is None:
                made = _Row(rule, meter.kind, meter.limit, from_key=True)
                row = own.setdefault((subject.key, meter.kind), made)
            row.counters.setdefault(meter.key, (meter, subject))
    return [*rows.values(), *own.values()]


def _named(rules: LimitRules) -> Iterator[tuple[LimitConfig, Subject]]:
    """Yield the rules that have a single counter, which is shown before any call."""
    for rule in rules.all:
        if EACH not in {rule.key, rule.model, rule.channel}:
            yield rule, Subject(key=rule.key, model=rule.model, channel=rule.channel)


def _limit(row: _Row, levels: Mapping[str, int]) -> pb.Limit:
    rule = row.rule
    uses = [
        _use(rule, subject, levels[meter.key], meter.kind)
        for meter, subject in row.counters.values()
        if meter.key in levels
    ]
    uses.sort(key=lambda use: (-use.used, use.key_id, use.model, use.channel))
    return pb.Limit(
        key_id=rule.key,
        model=rule.model,
        channel=rule.channel,
        kind=KINDS[row.kind],
        limit=row.limit,
        from_key=row.from_key,
        uses=uses[:USES_MAX],
        use_count=len(row.counters),
    )


def _use(rule: LimitConfig, subject: Subject, level: int, kind: MeterKind) -> pb.LimitUse:
    return pb.LimitUse(
        key_id=subject.key if rule.key else "",
        model=subject.model if rule.model else "",
        channel=subject.channel if rule.channel else "",
        used=level if kind is MeterKind.CALLS else level / PERIOD_US,
    )
