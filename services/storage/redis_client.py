"""Client of the counters' script on a Redis or Valkey server.

One task owns the only connection, and callers wait for futures that it resolves. So a cancelled
caller never leaves its reply to the next one, and the calls of all callers travel together in one
write. A caller waits at most `TIMEOUT_S`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TypeAlias

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.storage.counters import CALL_RETRY_AFTER_US, PERIOD_US

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

SCRIPT = "counters.lua"

CONSTANTS = {"PERIOD_US": PERIOD_US, "CALL_RETRY_AFTER_US": CALL_RETRY_AFTER_US}
"""Constants of `services.storage.counters` that the script needs."""

Arguments: TypeAlias = Sequence[str | int]
Reply: TypeAlias = Sequence[int]


def read_script() -> str:
    """Return the script, with its constants in front."""
    constants = (f"local {name} = {value}" for name, value in CONSTANTS.items())
    return "\n".join((*constants, resources.files(__package__).joinpath(SCRIPT).read_text()))


class NoReplyError(Exception):
    """The server did not answer in time."""


@dataclass(frozen=True, slots=True)
class _PendingCall:
    """Call of the script that has no reply yet."""

    arguments: Arguments
    deadline: float
    """In the event loop's time."""
    reply: asyncio.Future[Reply]


class ScriptClient:
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


def _retrieve_exception(reply: asyncio.Future[Reply]) -> None:
    """Mark the exception of an ignored reply as retrieved."""
    if not reply.cancelled():
        reply.exception()
