"""Shared limits: counters in Redis or Valkey, with local counters while the server is away.

A script runs each operation on all its counters atomically. One task owns the only connection,
and callers wait for futures that it resolves. So a cancelled caller never leaves its reply to the
next one, and the operations of all callers travel together in one write.

When the server stops answering, callers wait at most `TIMEOUT_S`, then the local counters decide.
From then on these decide at once, until the task has reconnected. Only limits are stored here: a
server that is lost or emptied costs no money.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import resources
from types import TracebackType
from typing import Self, TypeAlias

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

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

log = logging.getLogger(__name__)

TIMEOUT_S = 0.1
"""Timeout of an operation."""

CONNECT_TIMEOUT_S = 2.0
"""Timeout of connecting. Only the start of the service waits for it."""

RETRY_MIN_S = 0.1
RETRY_MAX_S = 5.0
"""Backoff between attempts to connect: doubled from minimum to maximum."""

BATCH_MAX = 256
"""Maximum number of operations in one write. The server takes some 20 us for each."""

BACKLOG_MAX = 10_000
"""Maximum number of operations waiting to be sent. Beyond it the local counters decide."""

KEY_PREFIX = "pomogator:{limits}:"
"""The braces put all keys of a script into one slot of a cluster."""

SCRIPT = "counters.lua"

CONSTANTS = {"PERIOD_US": PERIOD_US, "CALL_RETRY_AFTER_US": CALL_RETRY_AFTER_US}
"""What the script has in common with `services.storage.counters`."""

PROBE = (Meter("probe", MeterKind.REQUESTS, LIMIT_MAX),)
"""Meters of the first operation on a connection: a full server or a replica refuses writes."""

Arguments: TypeAlias = Sequence[str | int]
Reply: TypeAlias = Sequence[int]


def read_script() -> str:
    """Return the script, with its constants in front."""
    constants = (f"local {name} = {value}" for name, value in CONSTANTS.items())
    return "\n".join((*constants, resources.files(__package__).joinpath(SCRIPT).read_text()))


class NoReplyError(Exception):
    """The server did not answer in time."""


class RedisCounters:
    """Counter store in Redis. It runs a task, so it is used as a context manager."""

    def __init__(
        self, url: str, local: LocalCounters, *, replicas: int = 1, lease_s: float = LEASE_S
    ) -> None:
        """While the server is away, `local` grants one share of `replicas`."""
        self._local = local
        self._replicas = replicas
        self._lease_us = round(lease_s * 1e6)
        self._client = _ScriptClient(url, self._arguments("take", PROBE, "", requests=1))
        self._local_leases: set[str] = set()
        self.timeouts = 0
        """Number of operations that waited for the server until the timeout."""

    @property
    def shared(self) -> bool:
        """Whether the server decides, and not the local counters."""
        return self._client.connected

    async def __aenter__(self) -> Self:
        """Wait for the first attempt to connect. Further attempts run in the background."""
        await self._client.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send pending settlements, unless the server is away, and disconnect."""
        await self._client.close()

    async def take(self, meters: Sequence[Meter], tokens: int, lease_id: str) -> TakeResult:
        """Draw from all meters, or from none. See `CounterStore`."""
        if self._client.connected and not self._client.backlogged:
            arguments = self._arguments("take", meters, lease_id, requests=1, tokens=tokens)
            reply = self._client.call(arguments)
            try:
                wait, refused, *levels = await asyncio.shield(reply)
            except NoReplyError:
                self.timeouts += 1
            except asyncio.CancelledError:
                reply.add_done_callback(partial(self._undo, meters, tokens, lease_id))
                raise
            else:
                return TakeResult(levels, wait, refused)
        result = await self._local.take(self._shares(meters), tokens, lease_id)
        if result.refused < 0:
            self._local_leases.add(lease_id)
        return result

    async def peek(self, meters: Sequence[Meter]) -> Sequence[int]:
        """Return the levels, or those of the local counters while these decide."""
        if self._client.connected and not self._client.backlogged:
            with suppress(NoReplyError):
                reply = self._client.call(self._arguments("peek", meters, ""))
                _, _, *levels = await asyncio.shield(reply)
                return levels
        return await self._local.peek(self._shares(meters))

    def settle(
        self, meters: Sequence[Meter], lease_id: str, *, requests: int = 0, tokens: int = 0
    ) -> None:
        """Settle what `take` drew. See `CounterStore`."""
        if lease_id in self._local_leases:
            self._local_leases.discard(lease_id)
            shares = self._shares(meters)
            self._local.settle(shares, lease_id, requests=requests, tokens=tokens)
        elif self._client.connected and (requests or tokens or _count_calls(meters)):
            self._client.call_and_forget(
                self._arguments("settle", meters, lease_id, requests=requests, tokens=tokens)
            )

    def renew(self, meters: Sequence[Meter], lease_id: str) -> None:
        """Renew the lease of a running call. See `CounterStore`."""
        if lease_id in self._local_leases:
            self._local.renew(self._shares(meters), lease_id)
        elif self._client.connected:
            self._client.call_and_forget(self._arguments("renew", meters, lease_id))

    def _undo(
        self,
        meters: Sequence[Meter],
        tokens: int,
        lease_id: str,
        reply: asyncio.Future[Reply],
    ) -> None:
        """Give back what was drawn for a caller that was cancelled while the server decided."""
        if reply.exception() is None and reply.result()[1] < 0:
            self.settle(meters, lease_id, requests=-1, tokens=-tokens)

    def _arguments(
        self,
        act: str,
        meters: Sequence[Meter],
        lease_id: str,
        *,
        requests: int = 0,
        tokens: int = 0,
    ) -> Arguments:
        """Return the script's arguments: the number of keys, the keys, the rest."""
        keys = [KEY_PREFIX + meter.key for meter in meters]
        limits = [word for meter in meters for word in (meter.kind.value, meter.limit)]
        return [len(keys), *keys, act, lease_id, self._lease_us, requests, tokens, *limits]

    def _shares(self, meters: Sequence[Meter]) -> Sequence[Meter]:
        if self._replicas == 1:
            return meters
        return [meter._replace(limit=max(1, meter.limit // self._replicas)) for meter in meters]


@dataclass(frozen=True, slots=True)
class _PendingCall:
    """Call of the script that has no reply yet."""

    arguments: Arguments
    deadline: float
    """In the event loop's time."""
    reply: asyncio.Future[Reply]


class _ScriptClient:
    """Client of the script, which reconnects to its server."""

    def __init__(self, url: str, probe: Arguments) -> None:
        """`probe` is called on each new connection before it counts as connected."""
        self._connections = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._script = read_script()
        self._probe = probe
        self._pending: list[_PendingCall] = []
        self._has_pending = asyncio.Event()
        self._first_attempt = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._logged: bool | None = None
        self.connected = False
        """Whether the server answered the last call."""

    @property
    def backlogged(self) -> bool:
        """Whether more calls are pending than the server can answer in time."""
        return len(self._pending) >= BACKLOG_MAX

    def call(self, arguments: Arguments) -> asyncio.Future[Reply]:
        """Call the script. The future gets its reply within `TIMEOUT_S`, or `NoReplyError`."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        self._pending.append(_PendingCall(arguments, loop.time() + TIMEOUT_S, reply))
        self._has_pending.set()
        return reply

    def call_and_forget(self, arguments: Arguments) -> None:
        """Call the script and ignore its reply."""
        self.call(arguments).add_done_callback(_retrieve_exception)

    async def open(self) -> None:
        """Start the task, and wait for its first attempt to connect."""
        self._task = asyncio.create_task(self._run(), name="redis-counters")
        self._task.add_done_callback(lambda _: self._first_attempt.set())
        await self._first_attempt.wait()

    async def close(self) -> None:
        """Wait for pending replies, then disconnect."""
        if self._task is None:
            return
        if self.connected and self._pending:
            await asyncio.wait([call.reply for call in self._pending], timeout=TIMEOUT_S)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        """Connect, serve and reconnect. Only this task touches a connection."""
        pause_s = RETRY_MIN_S
        while True:
            connection = self._connections.make_connection()  # type: ignore[no-untyped-call]
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    digest = await self._prepare(connection)
                self._set_connected(connected=True)
                pause_s = RETRY_MIN_S
                await self._serve(connection, digest)
            except (RedisError, OSError, TimeoutError) as error:
                self._set_connected(connected=False, error=error)
            finally:
                self.connected = False
                self._fail_pending()
                await connection.disconnect(nowait=True)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    async def _prepare(self, connection: AbstractConnection) -> str:
        """Connect, load the script and probe it. Return the script's digest."""
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("SCRIPT", "LOAD", self._script)
        digest: bytes = await connection.read_response()
        await connection.send_command("EVALSHA", digest, *self._probe)
        await connection.read_response()
        return digest.decode()

    async def _serve(self, connection: AbstractConnection, digest: str) -> None:
        """Send pending calls, batched in one write, until one gets no reply."""
        while True:
            await self._has_pending.wait()
            batch = self._pending[:BATCH_MAX]
            async with asyncio.timeout_at(batch[0].deadline):
                packed = connection.pack_commands(
                    ("EVALSHA", digest, *call.arguments) for call in batch
                )
                await connection.send_packed_command(packed, check_health=False)
                for call in batch:
                    call.reply.set_result(await connection.read_response())
            del self._pending[: len(batch)]
            if not self._pending:
                self._has_pending.clear()

    def _fail_pending(self) -> None:
        calls, self._pending = self._pending, []
        self._has_pending.clear()
        for call in calls:
            if not call.reply.done():
                call.reply.set_exception(NoReplyError())

    def _set_connected(self, *, connected: bool, error: Exception | None = None) -> None:
        self.connected = connected
        self._first_attempt.set()
        if connected is self._logged:
            return
        self._logged = connected
        if connected:
            log.info("redis.connected")
        else:
            log.warning("redis.disconnected", extra={"reason": type(error).__name__})


def _count_calls(meters: Sequence[Meter]) -> bool:
    return any(meter.kind is MeterKind.CALLS for meter in meters)


def _retrieve_exception(reply: asyncio.Future[Reply]) -> None:
    """Mark the exception of an ignored reply as retrieved."""
    if not reply.cancelled():
        reply.exception()
