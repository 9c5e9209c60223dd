"""Shared limits: counters in Redis or Valkey, with local counters while the server is unreachable.

A script runs each operation on all its counters atomically. When the server stops answering,
callers wait at most for the client's timeout, then the local counters decide. From then on the
local counters decide without a wait, until the client has reconnected. Only limits are stored here:
the loss of a server or its data costs no money.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Self

from services.storage.counters import (
    CALL_RETRY_AFTER_US,
    LEASE_S,
    LIMIT_MAX,
    PERIOD_US,
    LocalCounters,
    Meter,
    MeterKind,
    TakeResult,
)
from services.storage.redis_client import Arguments, NoReplyError, ScriptClient, read_script

KEY_PREFIX = "pomogator:{limits}:"
"""The braces put all keys of a script into one slot of a cluster."""

SCRIPT = read_script(
    "counters.lua", {"PERIOD_US": PERIOD_US, "CALL_RETRY_AFTER_US": CALL_RETRY_AFTER_US}
)

PROBE = (Meter("probe", MeterKind.REQUESTS, LIMIT_MAX),)
"""Meters of the first operation on a connection. It writes, since a full server or a read-only
replica refuses only writes."""


class RedisCounters:
    """Counter store in Redis. It runs a task, so it is used as a context manager."""

    def __init__(
        self,
        url: str,
        local: LocalCounters,
        *,
        replicas: Callable[[], int] = lambda: 1,
        lease_s: float = LEASE_S,
    ) -> None:
        """While the server is unreachable, `local` grants each limit divided by `replicas()`."""
        self._local = local
        self._replicas = replicas
        self._lease_us = round(lease_s * 1e6)
        self._running: dict[str, set[str]] = {}
        """IDs of the leases of this process, by the key of a limit on concurrent calls."""
        probe = self._arguments("take", PROBE, "", requests=1)
        self.client: ScriptClient[int] = ScriptClient(url, SCRIPT, probe, store="limits")
        self._local_leases: set[str] = set()
        self.timeouts = 0
        """Number of operations that waited for the server until the timeout."""

    @property
    def shared(self) -> bool:
        """Whether the server decides, and not the local counters."""
        return self.client.connected

    async def __aenter__(self) -> Self:
        """Wait for the first attempt to connect. Further attempts run in the background."""
        await self.client.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send pending settlements, unless the server is unreachable, and disconnect."""
        await self.client.close()

    async def take(self, meters: Sequence[Meter], tokens: int, lease_id: str) -> TakeResult:
        """Draw from all meters, or from none. See `CounterStore`."""
        if self.client.connected and not self.client.backlogged:
            arguments = self._arguments("take", meters, lease_id, requests=1, tokens=tokens)
            reply = self.client.call(arguments)
            try:
                wait, refused, *levels, lost = await asyncio.shield(reply)
            except NoReplyError:
                self.timeouts += 1
            except asyncio.CancelledError:
                reply.add_done_callback(partial(self._undo, meters, tokens, lease_id))
                raise
            else:
                if lost:
                    self._renew_running(meters)
                if refused < 0:
                    self._note_running(meters, lease_id)
                return TakeResult(levels, wait, refused)
        result = await self._local.take(self._shares(meters), tokens, lease_id)
        if result.refused < 0:
            self._local_leases.add(lease_id)
            self._note_running(meters, lease_id)
        return result

    async def peek(self, meters: Sequence[Meter]) -> Sequence[int]:
        """Return the levels, or those of the local counters while these decide."""
        if self.client.connected and not self.client.backlogged:
            with suppress(NoReplyError):
                reply = self.client.call(self._arguments("peek", meters, ""))
                _, _, *levels, _ = await asyncio.shield(reply)
                return levels
        return await self._local.peek(self._shares(meters))

    def settle(
        self, meters: Sequence[Meter], lease_id: str, *, requests: int = 0, tokens: int = 0
    ) -> None:
        """Settle what `take` drew. See `CounterStore`."""
        self._note_ended(meters, lease_id)
        if lease_id in self._local_leases:
            self._local_leases.discard(lease_id)
            shares = self._shares(meters)
            self._local.settle(shares, lease_id, requests=requests, tokens=tokens)
            requests = tokens = 0  # The server knows the lease alone, from `_renew_running`.
        if self.client.connected and (requests or tokens or _has_concurrency_meter(meters)):
            self.client.call_and_forget(
                self._arguments("settle", meters, lease_id, requests=requests, tokens=tokens)
            )

    def renew(self, meters: Sequence[Meter], lease_id: str) -> None:
        """Renew the lease of a running call. See `CounterStore`."""
        if lease_id in self._local_leases:
            self._local.renew(self._shares(meters), lease_id)
        elif self.client.connected:
            self.client.call_and_forget(self._arguments("renew", meters, lease_id))

    def _renew_running(self, meters: Sequence[Meter]) -> None:
        """Tell a server that was emptied which calls of this process it has lost."""
        for meter in meters:
            for lease_id in self._running.get(meter.key, ()):
                self.client.call_and_forget(self._arguments("renew", [meter], lease_id))

    def _note_running(self, meters: Sequence[Meter], lease_id: str) -> None:
        for meter in meters:
            if meter.kind is MeterKind.CALLS:
                self._running.setdefault(meter.key, set()).add(lease_id)

    def _note_ended(self, meters: Sequence[Meter], lease_id: str) -> None:
        for meter in meters:
            leases = self._running.get(meter.key)
            if leases is not None:
                leases.discard(lease_id)
                if not leases:
                    del self._running[meter.key]

    def _undo(
        self,
        meters: Sequence[Meter],
        tokens: int,
        lease_id: str,
        reply: asyncio.Future[Sequence[int]],
    ) -> None:
        """Release what was drawn for a caller that was cancelled while the server decided."""
        if reply.exception() is None and reply.result()[1] < 0:
            self.settle(meters, lease_id, requests=-1, tokens=-tokens)

    def _arguments(
        self,
        operation: str,
        meters: Sequence[Meter],
        lease_id: str,
        *,
        requests: int = 0,
        tokens: int = 0,
    ) -> Arguments:
        """Return the script's arguments: the number of keys, the keys, the rest."""
        keys = [KEY_PREFIX + meter.key for meter in meters]
        limits = [
            word
            for meter in meters
            for word in (meter.kind.value, meter.limit, len(self._running.get(meter.key, ())))
        ]
        return [len(keys), *keys, operation, lease_id, self._lease_us, requests, tokens, *limits]

    def _shares(self, meters: Sequence[Meter]) -> Sequence[Meter]:
        replicas = self._replicas()
        if replicas == 1:
            return meters
        return [meter._replace(limit=max(1, meter.limit // replicas)) for meter in meters]


def _has_concurrency_meter(meters: Sequence[Meter]) -> bool:
    return any(meter.kind is MeterKind.CALLS for meter in meters)
