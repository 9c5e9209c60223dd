"""Limits that hold over a fleet: counters in Redis or Valkey, local ones while it is away.

One script does each act on all its counters at once. One task owns the one connection;
callers wait for a future that it resolves. So a caller that is cancelled can never leave
its answer to the next one, and the acts of all callers travel together in one write.

Whoever waits when the server ceases to answer waits `TIMEOUT_S` at most, then the local
counters decide; from then on they decide at once, until the task has reconnected. Nothing
but limits is kept here: a server that is lost or emptied costs no money.
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

from services.storage.counters import LEASE_S, LIMIT_MAX, Kind, LocalCounters, Meter, Verdict

log = logging.getLogger(__name__)

TIMEOUT_S = 0.1
"""How long an act may take."""

CONNECT_TIMEOUT_S = 2.0
"""How long connecting may take. Nobody but the start of the service waits for it."""

RETRY_MIN_S = 0.1
RETRY_MAX_S = 5.0
"""Between attempts to connect: doubled from the one to the other."""

BATCH_MAX = 256
"""Acts in one write. The server takes some 20 us for each."""

BACKLOG_MAX = 10_000
"""Acts that wait to be sent. Beyond it the local counters decide."""

KEY_PREFIX = "pomogator:{limits}:"
"""Braces keep all keys of a script in one slot of a cluster."""

SCRIPT = "counters.lua"

PROBE = (Meter("probe", Kind.REQUESTS, LIMIT_MAX),)
"""Shows that the server not only answers but also writes: it may be full, or a replica."""

Arguments: TypeAlias = Sequence[str | int]
Reply: TypeAlias = Sequence[int]


class LostError(Exception):
    """The server did not answer."""


class RedisCounters:
    """Implements `CounterStore`. Use it as a context manager: it runs a task."""

    def __init__(
        self, url: str, local: LocalCounters, *, replicas: int = 1, lease_s: float = LEASE_S
    ) -> None:
        """While the server is away `local` decides, about one share of `replicas`."""
        self._local = local
        self._replicas = replicas
        self._lease_us = round(lease_s * 1e6)
        self._line = _Line(url, self._arguments("take", PROBE, "", requests=1))
        self._local_leases: set[str] = set()
        self.stalls = 0
        """How many acts have waited for the server in vain."""

    @property
    def shared(self) -> bool:
        """Whether the server decides; else the local counters do."""
        return self._line.up

    async def __aenter__(self) -> Self:
        """Waits for the first attempt to connect; more are made behind the scenes."""
        await self._line.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Sends what was settled, as far as the server takes it, and disconnects."""
        await self._line.close()

    async def take(self, meters: Sequence[Meter], tokens: int, lease_id: str) -> Verdict:
        """Draws from all meters, or from none. See `CounterStore`."""
        if self._line.up and not self._line.crowded:
            arguments = self._arguments("take", meters, lease_id, requests=1, tokens=tokens)
            reply = self._line.ask(arguments)
            try:
                wait, refused, *levels = await asyncio.shield(reply)
            except LostError:
                self.stalls += 1
            except asyncio.CancelledError:
                reply.add_done_callback(partial(self._undo, meters, tokens, lease_id))
                raise
            else:
                return Verdict(levels, wait, refused)
        verdict = await self._local.take(self._shares(meters), tokens, lease_id)
        if verdict.refused < 0:
            self._local_leases.add(lease_id)
        return verdict

    async def peek(self, meters: Sequence[Meter]) -> Sequence[int]:
        """The levels; those of the local counters while these decide. See `CounterStore`."""
        if self._line.up and not self._line.crowded:
            with suppress(LostError):
                reply = self._line.ask(self._arguments("peek", meters, ""))
                _, _, *levels = await asyncio.shield(reply)
                return levels
        return await self._local.peek(self._shares(meters))

    def settle(
        self, meters: Sequence[Meter], lease_id: str, *, requests: int = 0, tokens: int = 0
    ) -> None:
        """Ends what `take` began. See `CounterStore`."""
        if lease_id in self._local_leases:
            self._local_leases.discard(lease_id)
            shares = self._shares(meters)
            self._local.settle(shares, lease_id, requests=requests, tokens=tokens)
        elif self._line.up and (requests or tokens or _holds_place(meters)):
            self._line.tell(
                self._arguments("settle", meters, lease_id, requests=requests, tokens=tokens)
            )

    def renew(self, meters: Sequence[Meter], lease_id: str) -> None:
        """Keeps a running call's places. See `CounterStore`."""
        if lease_id in self._local_leases:
            self._local.renew(self._shares(meters), lease_id)
        elif self._line.up:
            self._line.tell(self._arguments("renew", meters, lease_id))

    def _undo(
        self,
        meters: Sequence[Meter],
        tokens: int,
        lease_id: str,
        reply: asyncio.Future[Reply],
    ) -> None:
        """The caller left while the server decided: what it drew is given back."""
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
        """What the script is called with: the number of keys, the keys, the rest."""
        keys = [KEY_PREFIX + meter.key for meter in meters]
        limits = [word for meter in meters for word in (meter.kind.value, meter.limit)]
        return [len(keys), *keys, act, lease_id, self._lease_us, requests, tokens, *limits]

    def _shares(self, meters: Sequence[Meter]) -> Sequence[Meter]:
        if self._replicas == 1:
            return meters
        return [meter._replace(limit=max(1, meter.limit // self._replicas)) for meter in meters]


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of the script on its way."""

    arguments: Arguments
    deadline: float
    """By the loop's clock."""
    reply: asyncio.Future[Reply]


class _Line:
    """Calls the script on a server that may come and go."""

    def __init__(self, url: str, probe: Arguments) -> None:
        """`probe` is a call that is made on each new connection before it counts as up."""
        self._connections = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._script = resources.files(__package__).joinpath(SCRIPT).read_text()
        self._probe = probe
        self._calls: list[_Call] = []
        self._called = asyncio.Event()
        self._tried = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._told: bool | None = None
        self.up = False
        """Whether the server answered last time."""

    @property
    def crowded(self) -> bool:
        """Whether more calls wait to be sent than the server can take in time."""
        return len(self._calls) >= BACKLOG_MAX

    def ask(self, arguments: Arguments) -> asyncio.Future[Reply]:
        """The reply to come, by `TIMEOUT_S` from now, or `LostError`."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        self._calls.append(_Call(arguments, loop.time() + TIMEOUT_S, reply))
        self._called.set()
        return reply

    def tell(self, arguments: Arguments) -> None:
        """Asks, and does not wait for the reply."""
        self.ask(arguments).add_done_callback(_look)

    async def open(self) -> None:
        """Starts to connect, and waits for the first attempt."""
        self._owner = asyncio.create_task(self._own(), name="redis-counters")
        self._owner.add_done_callback(lambda _: self._tried.set())
        await self._tried.wait()

    async def close(self) -> None:
        """Waits for the replies to come, then disconnects."""
        if self._owner is None:
            return
        if self.up and self._calls:
            await asyncio.wait([call.reply for call in self._calls], timeout=TIMEOUT_S)
        self._owner.cancel()
        await asyncio.wait([self._owner])

    async def _own(self) -> None:
        """Connects and serves, again and again. The only place that touches a connection."""
        pause_s = RETRY_MIN_S
        while True:
            connection = self._connections.make_connection()  # type: ignore[no-untyped-call]
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    digest = await self._prepare(connection)
                self._turn(up=True)
                pause_s = RETRY_MIN_S
                await self._serve(connection, digest)
            except (RedisError, OSError, TimeoutError) as error:
                self._turn(up=False, error=error)
            finally:
                self.up = False
                self._drop()
                await connection.disconnect(nowait=True)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    async def _prepare(self, connection: AbstractConnection) -> str:
        """Connects, loads the script and tries it. Returns the script's digest."""
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("SCRIPT", "LOAD", self._script)
        digest: bytes = await connection.read_response()
        await connection.send_command("EVALSHA", digest, *self._probe)
        await connection.read_response()
        return digest.decode()

    async def _serve(self, connection: AbstractConnection, digest: str) -> None:
        """Makes calls, as many in one write as there are, until one gets no reply."""
        while True:
            await self._called.wait()
            batch = self._calls[:BATCH_MAX]
            async with asyncio.timeout_at(batch[0].deadline):
                packed = connection.pack_commands(
                    ("EVALSHA", digest, *call.arguments) for call in batch
                )
                await connection.send_packed_command(packed, check_health=False)
                for call in batch:
                    call.reply.set_result(await connection.read_response())
            del self._calls[: len(batch)]
            if not self._calls:
                self._called.clear()

    def _drop(self) -> None:
        calls, self._calls = self._calls, []
        self._called.clear()
        for call in calls:
            if not call.reply.done():
                call.reply.set_exception(LostError())

    def _turn(self, *, up: bool, error: Exception | None = None) -> None:
        self.up = up
        self._tried.set()
        if up is self._told:
            return
        self._told = up
        if up:
            log.info("limits.shared")
        else:
            log.warning("limits.local", extra={"cause": type(error).__name__})


def _holds_place(meters: Sequence[Meter]) -> bool:
    return any(meter.kind is Kind.CALLS for meter in meters)


def _look(reply: asyncio.Future[Reply]) -> None:
    """Nobody waits for it, and so its exception is no news."""
    if not reply.cancelled():
        reply.exception()
