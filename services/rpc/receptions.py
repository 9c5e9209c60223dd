"""Receptions: the requests that gRPC is receiving, of which only some may be large at a time.

gRPC gives a request when it is whole, and its client may send as much of it as is allowed as soon
as it is asked for. So not all are asked for at once. A small request comes with its call's headers,
and is received in a fraction of a millisecond; others wait no longer than that for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, cast

from services.domain.error_reason import ErrorReason
from services.errors import Failure

RECEIVED_COST = 2
"""Bytes of memory for each byte of a request while it is received: gRPC's, and Python's copy."""

RECEPTION_SHARE = 0.5
"""Share of the memory for large requests that may be received at a time."""

RECEPTIONS_MIN = 2
"""The fewest requests that are received at a time, however little memory there is."""

WAIT_S = 5.0
"""The longest time that a call waits before its request is received."""

SPARE_INTERVAL_S = 0.1
"""The interval at which one more request is received where there is memory to spare, as where the
others are slow or small. Memory is looked at every 0.25 s."""

RETRY_AFTER_S = 1.0
"""The wait before a retry of a call that has waited in vain."""


class Receptions:
    """Limits the requests that are received at a time. One key may not have all of them."""

    def __init__(self, most: int, has_spare: Callable[[], bool] = lambda: False) -> None:
        """More of them are received while `has_spare` says that there is memory to spare."""
        self._most = most
        self._has_spare = has_spare
        self._spare_at = 0.0
        self._count = 0
        self._by_key: Counter[str] = Counter()
        self._waiting: list[asyncio.Future[None]] = []

    @classmethod
    def within(
        cls, memory_bytes: int, request_bytes_max: int, has_spare: Callable[[], bool]
    ) -> Receptions:
        """Return the limit for requests of that size and that memory."""
        most = int(memory_bytes * RECEPTION_SHARE / (RECEIVED_COST * request_bytes_max))
        return cls(max(RECEPTIONS_MIN, most), has_spare)

    async def begin(self, key: str) -> None:
        """Begin the reception of the request of this task's call, as soon as it may be large.

        Raises Failure OVERLOADED where it has waited in vain.
        """
        if not self._fits(key):
            await self._wait(key)
        self._count += 1
        self._by_key[key] += 1
        reception = _Reception(self, key)
        _current.set(reception)
        cast("asyncio.Task[object]", asyncio.current_task()).add_done_callback(reception.end)

    def end(self, key: str) -> None:
        """End a reception."""
        self._count -= 1
        self._by_key[key] -= 1
        if not self._by_key[key]:
            del self._by_key[key]
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def _fits(self, key: str) -> bool:
        return self._count < self._most and self._by_key[key] < self._most - 1

    async def _wait(self, key: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(WAIT_S):
                while not self._fits(key):
                    changed = loop.create_future()
                    self._waiting.append(changed)
                    await asyncio.wait({changed}, timeout=SPARE_INTERVAL_S)
                    if loop.time() >= self._spare_at and self._has_spare():
                        self._spare_at = loop.time() + SPARE_INTERVAL_S
                        return
        except TimeoutError:
            message = "Too many requests are being received. Please try again."
            raise Failure(ErrorReason.OVERLOADED, message, retry_after_s=RETRY_AFTER_S) from None


class _Reception:
    """The reception of one request."""

    __slots__ = ("_key", "_receptions")

    def __init__(self, receptions: Receptions, key: str) -> None:
        self._receptions: Receptions | None = receptions
        self._key = key

    def end(self, _: object = None) -> None:
        """End it: the request is there, or its call is over."""
        if self._receptions is not None:
            self._receptions.end(self._key)
            self._receptions = None


_current: ContextVar[_Reception | None] = ContextVar("reception", default=None)


def end_reception() -> None:
    """End the reception of the request of this task's call, if one has begun."""
    reception: Any = _current.get()
    if reception is not None:
        reception.end()
