"""The `x-ratelimit-…` headers of answers and refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from services.storage.counters import PERIOD_US, Meter, MeterKind

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def rate_limit_headers(meters: Sequence[Meter], levels: Sequence[int]) -> Mapping[str, str]:
    """Return `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` of the tightest limits.

    `reset` is the time until the limit is free again, as in `6m0s` or `20ms`.
    """
    if not meters:
        return NO_HEADERS
    tightest: dict[MeterKind, tuple[int, int, int]] = {}
    for (_, kind, limit), level in zip(meters, levels, strict=True):
        if kind is not MeterKind.CALLS:
            state = (max(0, limit - -(-level // PERIOD_US)), limit, level)
            if kind not in tightest or state < tightest[kind]:
                tightest[kind] = state
    shown: dict[str, str] = {}
    for kind, (remaining, limit, level) in tightest.items():
        name = kind.value
        shown["x-ratelimit-limit-" + name] = str(limit)
        shown["x-ratelimit-remaining-" + name] = str(remaining)
        shown["x-ratelimit-reset-" + name] = duration(-(-level // limit))
    return shown


def duration(us: int) -> str:
    """Return microseconds, rounded up to milliseconds, as in `20ms`, `1.5s` or `6m0s`."""
    ms = -(-us // 1000)
    if ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    seconds = f"{ms / 1000:g}s"
    return f"{minutes}m{seconds}" if minutes else seconds
