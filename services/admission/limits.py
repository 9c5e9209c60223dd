"""Requests, tokens and concurrent calls: how much of each, of what, and when to come back.

A call is counted twice: when it is admitted, by the rules on keys and models and by the
key's own limits; then at each attempt, by the rules on channels, where a refusal means
"try the next channel". Both times all limits that apply are drawn from together or not
at all, so that a refused call has used up nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Mapping, Sequence
from secrets import token_hex
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Self

from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.clock import Chance
from services.common.counters import Counters
from services.config.limits import LimitConfig
from services.errors import Failure
from services.storage.counters import (
    LEASE_S,
    PERIOD_US,
    CounterStore,
    Meter,
    MeterKind,
    TakeResult,
)
from services.telemetry.supervisor import Supervisor

JITTER = 0.2
"""How much later than needed callers are told to come back, at most, so that they spread."""

PLANS_MAX = 20_000
"""How many subjects are remembered with the limits that apply to them."""

EACH = "*"


class Allowance(NamedTuple):
    """How much may be used. None: without limit."""

    rpm: int | None = None
    """Requests in a minute."""
    tpm: int | None = None
    """Tokens in a minute."""
    concurrency: int | None = None
    """Calls at a time."""


UNLIMITED = Allowance()


class Subject(NamedTuple):
    """What a call is, to limits."""

    key: str
    """The key's ID."""
    model: str
    """The model's public name, without a derived suffix."""
    channel: str = ""
    """With a name: an attempt on that channel. Without: the call as a whole."""
    own: Allowance = UNLIMITED
    """The key's own limits, over all models. They stand above rules for the same."""


class LimitExceeded(Failure):
    """RATE_LIMIT_EXCEEDED. `retry_after_s` is the time after which the call is admitted."""

    def __init__(self, meter: Meter, retry_after_s: float, headers: Mapping[str, str]) -> None:
        super().__init__(
            reasons.ERROR_REASON_RATE_LIMIT_EXCEEDED,
            "Rate limit exceeded",
            facts={"limit": meter.kind.value, "limitValue": str(meter.limit)},
            retry_after_s=retry_after_s,
        )
        self.headers = headers


class Lease:
    """What one call has drawn. A context manager that gives back what is left over."""

    __slots__ = ("_id", "_leases", "_meters", "_result", "_tokens", "_used")

    def __init__(
        self,
        leases: LimitLeases,
        meters: Sequence[Meter],
        result: TakeResult,
        tokens: int,
        lease_id: str,
    ) -> None:
        self._leases = leases
        self._meters = meters
        self._result = result
        self._tokens = tokens
        self._used = tokens
        self._id = lease_id

    def reconcile(self, tokens: int) -> None:
        """The call took `tokens` tokens, whatever was estimated. Counts when it is released."""
        self._used = tokens

    def release(self) -> None:
        """The call is over. To say so again changes nothing."""
        self._end(requests=0, tokens=self._used - self._tokens)

    def void(self) -> None:
        """The call never took place: all that it drew is given back."""
        self._end(requests=-1, tokens=-self._tokens)

    def headers(self) -> Mapping[str, str]:
        """What the answer should say about the limits: `x-ratelimit-…`, lower case."""
        return headers(self._meters, self._result.levels)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _end(self, *, requests: int, tokens: int) -> None:
        meters, self._meters = self._meters, ()
        if meters:
            self._leases.settle(meters, self._id, requests=requests, tokens=tokens)


class LimitLeases:
    """What calls have drawn from the counters of limits, over all reloads of the rules.

    Entered as a context manager it renews the leases of long calls; without that, a call
    that outlasts its lease no longer counts as concurrent.
    """

    def __init__(
        self,
        counters: CounterStore,
        chance: Chance,
        *,
        lease_s: float = LEASE_S,
        supervisor: Supervisor | None = None,
    ) -> None:
        """`supervisor` runs the renewal of leases. None: one of its own."""
        self._supervisor = supervisor or Supervisor()
        self._counters = counters
        self._chance = chance
        self._lease_s = lease_s
        self._live: dict[str, Sequence[Meter]] = {}
        self._serials = itertools.count()
        self._process = token_hex(8)
        self.unlimited = Lease(self, (), TakeResult((), 0, -1), 0, "")
        """The lease of all calls that no limit applies to."""
        self._renewer: asyncio.Task[None] | None = None

    async def take(self, plan: Sequence[Meter], tokens: int) -> Lease:
        """Draw a request, `tokens` tokens and a place from all meters of a plan.

        Raises LimitExceeded, and then nothing was drawn.
        """
        lease_id = f"{self._process}.{next(self._serials)}"
        result = await self._counters.take(plan, tokens, lease_id)
        if result.refused >= 0:
            raise LimitExceeded(
                plan[result.refused],
                _retry_after_s(result.retry_after_us, self._chance),
                headers(plan, result.levels),
            )
        if any(meter.kind is MeterKind.CALLS for meter in plan):
            self._live[lease_id] = plan
        return Lease(self, plan, result, tokens, lease_id)

    async def standing(self, plan: Sequence[Meter]) -> Mapping[str, str]:
        """`x-ratelimit-…` headers of an answer that draws nothing."""
        return headers(plan, await self._counters.peek(plan)) if plan else _NO_HEADERS

    def settle(self, meters: Sequence[Meter], lease_id: str, *, requests: int, tokens: int) -> None:
        """End a lease. Only leases call this."""
        self._live.pop(lease_id, None)
        self._counters.settle(meters, lease_id, requests=requests, tokens=tokens)

    @property
    def places(self) -> int:
        """How many leases hold a place of a limit on concurrent calls."""
        return len(self._live)

    @property
    def timeouts(self) -> int:
        """How many calls have waited in vain for counters that are shared."""
        return self._counters.timeouts

    def declare_metrics(self, counters: Counters) -> None:
        """Declare the metrics of the leases."""
        counters.observable_gauge(
            "limit_leases",
            "Leases that hold a place of a limit on concurrent calls.",
            lambda: self.places,
        )
        counters.observable_counter(
            "limit_timeouts_total",
            "Calls that waited for the shared limits in vain, for 100 ms at most.",
            lambda: self.timeouts,
        )

    def renew(self) -> None:
        """Renew the leases of all calls that have not been released."""
        for lease_id, meters in self._live.items():
            self._counters.renew(meters, lease_id)

    async def __aenter__(self) -> Self:
        self._renewer = self._supervisor.start(self._keep_renewing, "limit leases")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._renewer is not None:
            self._renewer.cancel()
            await asyncio.gather(self._renewer, return_exceptions=True)

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            self.renew()


class Limits:
    """The limits of one configuration. What was drawn before a reload counts after it."""

    def __init__(self, rules: Sequence[LimitConfig], leases: LimitLeases) -> None:
        self._leases = leases
        self._call_rules = [rule for rule in rules if not rule.channel]
        self._channel_rules = [rule for rule in rules if rule.channel]
        self._plans: dict[Subject, Sequence[Meter]] = {}

    async def take(self, subject: Subject, tokens: int) -> Lease:
        """Draw a request, `tokens` tokens and a place from all limits that apply.

        Raises LimitExceeded, and then nothing was drawn.
        """
        plan = self._plans.get(subject)
        if plan is None:
            plan = self._plan(subject)
        return await self._leases.take(plan, tokens) if plan else self._leases.unlimited

    async def standing(self, subject: Subject) -> Mapping[str, str]:
        """`x-ratelimit-…` headers of an answer that draws nothing.

        None where nothing is limited: no number would be true.
        """
        return await self._leases.standing(self._plans.get(subject) or self._plan(subject))

    def _plan(self, subject: Subject) -> Sequence[Meter]:
        if len(self._plans) >= PLANS_MAX:
            self._plans.clear()
        plan = self._plans[subject] = tuple(self._meters(subject))
        return plan

    def _meters(self, subject: Subject) -> Sequence[Meter]:
        """One meter for each thing that is counted: the rule that names it best decides.

        Of rules that name it equally well, the last.
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


def _retry_after_s(retry_after_us: int, chance: Chance) -> float:
    """The wait with jitter, in whole milliseconds, rounded up: what travels is not too early."""
    return math.ceil(retry_after_us * (1 + JITTER * chance.random()) / 1000) / 1000


def _scope(rule: LimitConfig, subject: Subject) -> tuple[int, str] | None:
    """How many things the rule names, and what it counts; None where it does not apply."""
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


_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def headers(meters: Sequence[Meter], levels: Sequence[int]) -> Mapping[str, str]:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` of the tightest limit of each.

    `reset` is the time until the whole allowance is there again, as in `6m0s` or `20ms`.
    """
    if not meters:
        return _NO_HEADERS
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
    """Microseconds, rounded up to milliseconds, as in `20ms`, `1.5s` or `6m0s`."""
    ms = -(-us // 1000)
    if ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    seconds = f"{ms / 1000:g}s"
    return f"{minutes}m{seconds}" if minutes else seconds
