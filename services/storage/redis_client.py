"""Client of a script on a Redis or Valkey server.

One task owns the only connection, and callers wait for futures that it resolves. So a cancelled
caller never leaves its reply to the next one, and the calls of all callers travel together in one
write. A caller waits at most `TIMEOUT_S`.

The script is called by its digest, and by its text where the server has forgotten it or does not
let this user call digests. All keys are in one slot, so in a cluster one node has them: the client
follows MOVED to it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Generic, TypeAlias, TypeVar

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import MovedError, NoScriptError, RedisError, ResponseError

from services.storage.redis_connector import CONNECT_TIMEOUT_S, address_of, connector, describe

log = logging.getLogger(__name__)

TIMEOUT_S = 0.1
"""Timeout of an operation."""

RETRY_MIN_S = 0.1
RETRY_MAX_S = 5.0
"""Backoff between attempts to connect: doubled from minimum to maximum."""

BATCH_MAX = 256
"""Maximum number of operations in one write. The server takes some 20 us for each."""

BACKLOG_MAX = 10_000
"""Maximum number of operations waiting to be sent. Beyond it the local store decides."""

MOVES_MAX = 5
"""Most moves in a row without a backoff. A slot moves once, so more are a circle."""

Address: TypeAlias = tuple[str, int]
Arguments: TypeAlias = Sequence[str | int | bytes]
T = TypeVar("T")


def read_script(name: str, constants: Mapping[str, int]) -> str:
    """Return the script in the file of that name, with constants in front."""
    lines = (f"local {constant} = {value}" for constant, value in constants.items())
    return "\n".join((*lines, resources.files(__package__).joinpath(name).read_text()))


class NoReplyError(Exception):
    """The server did not answer in time."""


@dataclass(frozen=True, slots=True)
class _PendingCall(Generic[T]):
    """Call of the script that has no reply yet."""

    arguments: Arguments
    deadline: float
    """In the event loop's time."""
    reply: asyncio.Future[Sequence[T]]


class ScriptClient(Generic[T]):
    """Client of a script, which reconnects to its server. Replies are lists of T."""

    def __init__(self, url: str, script: str, probe: Arguments, *, store: str) -> None:
        """`probe` is called on each new connection before it counts as connected.

        Log events name the `store` that the script is of. Raise StateError if the URL is not valid.
        """
        self._store = store
        self._connections = connector(url)
        self._script = script
        self._digest = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._knows_digests = True
        self._node: Address | None = None
        """Node of a cluster that has the slot. None: the server of the URL."""
        self._next_node: Address | None = None
        """Node that the last move led to, which is tried in turn with the server of the URL."""
        self._moves = 0
        self._probe = probe
        self._pending: list[_PendingCall[T]] = []
        self._has_pending = asyncio.Event()
        self._first_attempt = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._logged: bool | None = None
        self.connected = False
        """Whether the server answered the last call."""
        self.failure = ""
        """Reason why the server is not connected."""
        self.failure_is_permanent = False
        """Whether it stays until an operator mends the cause."""

    @property
    def address(self) -> str:
        """Address that the URL names, without a login."""
        return address_of(self._connections)

    @property
    def backlogged(self) -> bool:
        """Whether more calls are pending than the server can answer in time."""
        return len(self._pending) >= BACKLOG_MAX

    @property
    def waiting(self) -> int:
        """Number of calls without a reply."""
        return len(self._pending)

    def call(self, arguments: Arguments) -> asyncio.Future[Sequence[T]]:
        """Call the script. The future gets its reply within `TIMEOUT_S`, or `NoReplyError`."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Sequence[T]] = loop.create_future()
        self._pending.append(_PendingCall(arguments, loop.time() + TIMEOUT_S, reply))
        self._has_pending.set()
        return reply

    def call_and_forget(self, arguments: Arguments) -> None:
        """Call the script and ignore its reply."""
        self.call(arguments).add_done_callback(_retrieve_exception)

    async def open(self) -> None:
        """Start the task, and wait for its first attempt to connect."""
        self._task = asyncio.create_task(self._run(), name=f"redis-{self._store}")
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
            connection = self._make_connection()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._prepare(connection)
                self._set_connected()
                pause_s, self._moves = RETRY_MIN_S, 0
                await self._serve(connection)
            except MovedError as moved:
                self._moves += 1
                self._node = self._next_node = (moved.host, moved.port)
                if self._moves <= MOVES_MAX:
                    continue
                self._set_disconnected(moved)
            except (RedisError, OSError, TimeoutError) as error:
                self._set_disconnected(error)
                self._node = self._next_node if self._node is None else None
            finally:
                self.connected = False
                self._fail_pending()
                await connection.disconnect(nowait=True)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _make_connection(self) -> AbstractConnection:
        pool = self._connections
        if self._node is not None:
            host, port = self._node
            given = dict(pool.connection_kwargs)
            # A node without a name of its own has that of the node that answered.
            given |= {"host": host or given.get("host"), "port": port}
            pool = ConnectionPool(connection_class=pool.connection_class, **given)
        connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def _prepare(self, connection: AbstractConnection) -> None:
        """Connect, and probe the script by its text, which loads it, and by its digest."""
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("EVAL", self._script, *self._probe)
        await connection.read_response()
        await connection.send_command("EVALSHA", self._digest, *self._probe)
        try:
            await connection.read_response()
        except ResponseError:
            self._knows_digests = False
        else:
            self._knows_digests = True

    async def _serve(self, connection: AbstractConnection) -> None:
        """Send pending calls, batched in one write, until one gets no reply."""
        while True:
            await self._has_pending.wait()
            batch = self._pending[:BATCH_MAX]
            async with asyncio.timeout_at(batch[0].deadline):
                if forgotten := await self._exchange(connection, batch):
                    await self._exchange(connection, forgotten, load=True)
            del self._pending[: len(batch)]
            if not self._pending:
                self._has_pending.clear()

    async def _exchange(
        self,
        connection: AbstractConnection,
        calls: Sequence[_PendingCall[T]],
        *,
        load: bool = False,
    ) -> Sequence[_PendingCall[T]]:
        """Send calls and resolve their replies. Return those whose script is not on the server.

        With `load` the first call has the script's text, which makes it known for the others.
        """
        by_text = ("EVAL", self._script)
        by_digest = ("EVALSHA", self._digest) if self._knows_digests else by_text
        packed = connection.pack_commands(
            (*(by_digest if index or not load else by_text), *call.arguments)
            for index, call in enumerate(calls)
        )
        await connection.send_packed_command(packed, check_health=False)
        forgotten = []
        for call in calls:
            try:
                call.reply.set_result(await connection.read_response())
            except NoScriptError:
                forgotten.append(call)
        return forgotten

    def _fail_pending(self) -> None:
        calls, self._pending = self._pending, []
        self._has_pending.clear()
        for call in calls:
            if not call.reply.done():
                call.reply.set_exception(NoReplyError())

    def _set_connected(self) -> None:
        self.connected = True
        self.failure, self.failure_is_permanent = "", False
        self._first_attempt.set()
        if self._logged is not True:
            log.info("redis.connected", extra={"store": self._store})
        self._logged = True

    def _set_disconnected(self, error: Exception) -> None:
        """Log an error if only an operator can mend the cause, else a warning."""
        self.failure, self.failure_is_permanent = describe(error)
        self._first_attempt.set()
        told = {"store": self._store, "reason": self.failure}
        if self._logged is not False and self.failure_is_permanent:
            log.error("redis.disconnected", extra=told)
        elif self._logged is not False:
            log.warning("redis.disconnected", extra=told)
        self._logged = False


def _retrieve_exception(reply: asyncio.Future[Sequence[T]]) -> None:
    """Mark the exception of an ignored reply as retrieved."""
    if not reply.cancelled():
        reply.exception()
