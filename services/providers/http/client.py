"""The client: POST a body, read the response as it arrives."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path

from services.common.counters import Counters
from services.providers.http.errors import HttpError, HttpErrorKind
from services.providers.http.incoming import WAITING_MAX, Incoming, Room
from services.providers.http.inflate import Inflater
from services.providers.http.pool import Pool
from services.providers.http.request import Origin, PostHead, Url
from services.providers.http.upstream_connection import UpstreamConnection

CONNECTIONS_MAX = 65_535
"""To one origin, which has no more ports for us. How many calls run at a time is decided before
they begin: nobody who has been let in shall wait for a connection here."""
LINGER_S = 1.0
"""How long the end of a message may lag behind the end of what it says."""


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """How servers prove who they are: against the system's authorities, or those in `ca_file`.

    There is no way to ask for less than that.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


class HttpResponse:
    """A response whose status and headers have arrived. Must be closed, in one way or another."""

    __slots__ = (
        "_closed",
        "_coding",
        "_connection",
        "_incoming",
        "_inflater",
        "_lingering",
        "_pool",
        "delimited_by_close",
        "status",
    )

    def __init__(self, incoming: Incoming, connection: UpstreamConnection, pool: Pool) -> None:
        self._incoming = incoming
        self._connection = connection
        self._pool: Pool | None = pool
        self._closed = False
        self._lingering: asyncio.TimerHandle | None = None
        self._inflater: Inflater | None = None
        self._coding = incoming.fields.get(b"content-encoding", b"")
        self.status = incoming.status
        """From 200 to 999. Redirects are statuses like others."""
        self.delimited_by_close = incoming.delimited_by_close
        """Whether the body ends with the connection, so that a cut looks like an end."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by lower-case name; those that came repeatedly are joined by commas."""
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._incoming.fields.items()
        }

    def read(self) -> Coroutine[object, object, bytes]:
        """What has arrived since the last time, decompressed. Empty at the end, and only there.

        Raises HttpError: DISCONNECTED where the body was cut, BAD_RESPONSE where it
        cannot be read. What came before has been given then.
        """
        # No coroutine of its own for what nearly always comes as it is.
        return self._inflated() if self._closed or self._coding else self._incoming.read()

    def close(self) -> None:
        """Gives the connection back, or closes it if the response has not arrived whole."""
        if not self._closed:
            self._closed = True
            self._settle()

    def finish(self) -> None:
        """As `close`, for a body that has said all it will say.

        The end of the HTTP message often comes in the next packet. It is awaited for
        `LINGER_S`, in the background, so that the connection can be used again.
        """
        if self._closed:
            return
        self._closed = True
        if self._incoming.complete:
            self._settle()
            return
        self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self._settle)
        self._incoming.expect_end(self._settle)

    def _settle(self) -> None:
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        if self._lingering is not None:
            self._lingering.cancel()
        self._incoming.discard()
        pool.leave(self._connection)

    async def _inflated(self) -> bytes:
        if self._closed:
            raise HttpError(HttpErrorKind.DISCONNECTED, "the response was closed")
        if self._inflater is None:
            self._inflater = Inflater.of(self._coding)
            if self._inflater is None:
                self._coding = b""
                return await self._incoming.read()
        while not (data := self._inflater.take()):
            arrived = await self._incoming.read()
            if not arrived:
                self._inflater.close()
                return b""
            self._inflater.feed(arrived)
        return data


class HttpClient:
    """An HTTP/1.1 client for calls that stream.

    Connections are kept and used again. Nothing is followed, remembered or taken from
    the environment: no redirects, cookies or proxies. Made inside a running loop.
    """

    def __init__(
        self,
        *,
        limit_per_host: int = CONNECTIONS_MAX,
        idle_timeout_s: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._limit = limit_per_host
        self._idle_timeout_s = idle_timeout_s
        self._tls = ssl_context
        self._pools: dict[Origin, Pool] = {}
        self._make = partial(
            UpstreamConnection,
            asyncio.get_running_loop(),
            buffer=memoryview(bytearray(WAITING_MAX)),
            room=Room(),
        )

    async def post(
        self, url: Url, headers: Mapping[str, str], body: bytes, *, connect_timeout_s: float
    ) -> HttpResponse:
        """As `send`, with a head that is sent once."""
        return await self.send(PostHead(url, headers), body, connect_timeout_s=connect_timeout_s)

    async def send(self, head: PostHead, body: bytes, *, connect_timeout_s: float) -> HttpResponse:
        """Sends `body`; returns once status and headers have arrived.

        `connect_timeout_s` bounds the way to a connection, nothing after that. A kept
        connection that turns out to be closed is replaced once. Raises HttpError.
        """
        pool = self._pools.get(head.origin) or self._add_pool(head.origin)
        if not pool.enter_at_once():
            await pool.enter(connect_timeout_s)
        sent = head.of(len(body))
        try:
            connection = pool.take()
            if connection is not None:
                try:
                    return HttpResponse(await connection.exchange(sent, body), connection, pool)
                except HttpError as error:
                    if error.kind is not HttpErrorKind.DISCONNECTED or not connection.was_stale:
                        raise
            connection = await pool.connect(connect_timeout_s)
            return HttpResponse(await connection.exchange(sent, body), connection, pool)
        except BaseException:
            pool.leave(None)
            raise

    async def close(self) -> None:
        """Closes all connections; responses that are being read are cut."""
        for pool in self._pools.values():
            await pool.close()

    @property
    def in_use(self) -> int:
        """How many connections carry an exchange, or are being made for one."""
        return sum(pool.in_use for pool in self._pools.values())

    def declare_metrics(self, counters: Counters) -> None:
        """Declare the metric of the connections."""
        counters.observable_gauge(
            "upstream_connections",
            "Connections to providers that carry a call.",
            lambda: self.in_use,
        )

    def _add_pool(self, origin: Origin) -> Pool:
        if origin.secure and self._tls is None:
            # Reading the system's authorities takes up to 50 ms, which nobody waits for in vain.
            self._tls = tls_context()
        pool = self._pools[origin] = Pool(
            origin,
            limit=self._limit,
            idle_timeout_s=self._idle_timeout_s,
            tls=self._tls if origin.secure else None,
            make=self._make,
        )
        return pool
