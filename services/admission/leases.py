"""Leases of limits: requests, tokens and slots that calls have taken and give back."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Self

from services.admission.limit_headers import NO_HEADERS, rate_limit_headers
from services.clock import Chance
from services.common.call_names import LIMIT, LIMIT_VALUE
from services.common.plain_metrics import PlainMetrics
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.counters import LEASE_S, CounterStore, Meter, MeterKind, TakeResult
from services.telemetry.supervisor import SupervisedTask, Supervisor

JITTER = 0.2
"""The random part of Retry-After, as a share of the wait: callers do not return together."""


class LimitExceeded(Failure):
    """RATE_LIMIT_EXCEEDED, with the time after which the call would be admitted."""

    def __init__(self, meter: Meter, retry_after_s: float, headers: Mapping[str, str]) -> None:
        super().__init__(
            ErrorReason.RATE_LIMIT_EXCEEDED,
            "Rate limit exceeded",
            facts={LIMIT: meter.kind.value, LIMIT_VALUE: str(meter.limit)},
            retry_after_s=retry_after_s,
        )
        self.headers = headers


class Lease:
    """Requests, tokens and slots that one call has taken. A context manager that releases them."""

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
        """Set the tokens that the call really took. Takes effect at the release."""
        self._used = tokens

    def release(self) -> None:
        """End the lease of a call that is over. A second release changes nothing."""
        self._end(requests=0, tokens=self._used - self._tokens)

    def void(self) -> None:
        """End the lease of a call that did not take place: all that it took is given back."""
        self._end(requests=-1, tokens=-self._tokens)

    def headers(self) -> Mapping[str, str]:
        """Return the `x-ratelimit-…` headers of the answer, in lower case."""
        meters = self._meters
        return rate_limit_headers(meters, self._result.levels) if meters else NO_HEADERS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _end(self, *, requests: int, tokens: int) -> None:
        meters, self._meters = self._meters, ()
        if meters:
            self._leases.settle(meters, self._id, requests=requests, tokens=tokens)


class LimitLeases:
    """Leases of all calls, over reloads of the rules.

    As a context manager it renews the leases of long calls; without that, a call that outlasts
    its lease no longer counts as concurrent.
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
        """The lease of all calls to which no limit applies."""
        self._renewer: SupervisedTask | None = None

    async def take(self, plan: Sequence[Meter], tokens: int) -> Lease:
        """Take a request, `tokens` tokens and a slot from all meters of a plan.

        Raises LimitExceeded; then nothing was taken. Leases taken before a reload of the rules
        count after it.
        """
        if not plan:
            return self.unlimited
        lease_id = f"{self._process}.{next(self._serials)}"
        result = await self._counters.take(plan, tokens, lease_id)
        if result.refused >= 0:
            raise LimitExceeded(
                plan[result.refused],
                _retry_after_s(result.retry_after_us, self._chance),
                rate_limit_headers(plan, result.levels),
            )
        if any(meter.kind is MeterKind.CALLS for meter in plan):
            self._live[lease_id] = plan
        return Lease(self, plan, result, tokens, lease_id)

    async def peek_headers(self, plan: Sequence[Meter]) -> Mapping[str, str]:
        """Return the `x-ratelimit-…` headers of an answer that takes nothing.

        Without a limit there are none: no number would be true.
        """
        return rate_limit_headers(plan, await self._counters.peek(plan)) if plan else NO_HEADERS

    async def peek(self, meters: Sequence[Meter]) -> Sequence[int]:
        """Return the current level of each meter, as `CounterStore.peek` does."""
        return await self._counters.peek(meters)

    def settle(self, meters: Sequence[Meter], lease_id: str, *, requests: int, tokens: int) -> None:
        """End a lease. Only leases call this."""
        self._live.pop(lease_id, None)
        self._counters.settle(meters, lease_id, requests=requests, tokens=tokens)

    @property
    def slots(self) -> int:
        """Number of leases that hold a slot of a limit on concurrent calls."""
        return len(self._live)

    @property
    def timeouts(self) -> int:
        """Number of calls for which the shared counters did not answer in time."""
        return self._counters.timeouts

    def declare_metrics(self, counters: PlainMetrics) -> None:
        """Declare the metrics of the leases."""
        counters.observable_gauge(
            "limit_leases",
            "Leases that hold a slot of a limit on concurrent calls.",
            lambda: self.slots,
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

    async def __aexit__(self, *_: object) -> None:
        if self._renewer is not None:
            self._renewer.cancel()
            await asyncio.gather(self._renewer, return_exceptions=True)

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            self.renew()


def _retry_after_s(wait_us: int, chance: Chance) -> float:
    """Return the wait with jitter, rounded up to milliseconds: as sent, it is never too early."""
    return math.ceil(wait_us * (1 + JITTER * chance.random()) / 1000) / 1000
