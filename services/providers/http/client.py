"""HTTP client: POST a body, read the response as it arrives."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Mapping
from functools import partial

from services.common.plain_metrics import PlainMetrics
from services.common.tls import upstream_context
from services.providers.http.decompressor import Decompressor
from services.providers.http.errors import HttpError, HttpErrorKind
from services.providers.http.incoming_response import BUFFER_MAX, IncomingResponse, ReceiveBudget
from services.providers.http.pool import Pool
from services.providers.http.proxy import AUTHENTICATION_REQUIRED, Proxies
from services.providers.http.request import Origin, PostHead, Url
from services.providers.http.upstream_connection import UpstreamConnection

CONNECTIONS_MAX = 65_535
"""Connections to one origin: the number of ports. Concurrency is limited at admission, so that no
admitted call waits for a connection."""
END_TIMEOUT_S = 1.0
"""How long to wait for the end of the HTTP message after the end of its content."""
NO_PROXIES = Proxies()


class HttpResponse:
    """Response whose status and headers have arrived. End it with `close` or `finish`."""

    __slots__ = (
        "_closed",
        "_coding",
        "_connection",
        "_incoming",
        "_inflater",
        "_lingering",
        "_pool",
        "delimited_by_close",
        "read",
        "status",
    )

    def __init__(
        self, incoming: IncomingResponse, connection: UpstreamConnection, pool: Pool
    ) -> None:
        self._incoming = incoming
        self._connection = connection
        self._pool: Pool | None = pool
        self._closed = False
        self._lingering: asyncio.TimerHandle | None = None
        self._inflater: Decompressor | None = None
        self._coding = incoming.fields.get(b"content-encoding", b"")
        # Nearly all bodies are uncompressed, and need no coroutine of their own.
        self.read: Callable[[], Coroutine[object, object, bytes]] = (
            self._inflated if self._coding else incoming.read
        )
        """Reads the bytes that arrived since the last call, decompressed. Empty only at the end.

        Raises HttpError after the bytes before the failure: DISCONNECTED if the body was cut,
        BAD_RESPONSE if it cannot be decoded.
        """
        self.status = incoming.status
        """From 200 to 999. Redirects are not followed."""
        self.delimited_by_close = incoming.delimited_by_close
        """Whether the body ends with the connection, so that a cut is indistinguishable."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers by lower-case name; repeated headers are joined by commas."""
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._incoming.fields.items()
        }

    @property
    def complete(self) -> bool:
        """Whether the whole response has arrived."""
        return self._incoming.complete

    def close(self) -> None:
        """Return the connection to the pool, or close it if the response is incomplete."""
        if not self._closed:
            self._closed = True
            self._settle()

    def finish(self) -> None:
        """Close after complete content, and keep the connection if the message ends soon.

        The end of the HTTP message often comes in the next packet. It is awaited for
        `END_TIMEOUT_S`, in the background.
        """
        if self._closed:
            return
        self._closed = True
        if self._incoming.complete:
            self._settle()
            return
        self._lingering = asyncio.get_running_loop().call_later(END_TIMEOUT_S, self._settle)
        self._incoming.expect_end(self._settle)

    def _settle(self) -> None:
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        if self._lingering is not None:
            self._lingering.cancel()
        self._incoming.discard()
        self.read = self._incoming.read  # Refers to this response no longer.
        pool.leave(self._connection)

    async def _inflated(self) -> bytes:
        if self._closed:
            raise HttpError(HttpErrorKind.DISCONNECTED, "the response was closed")
        if self._inflater is None:
            self._inflater = Decompressor.of(self._coding)
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
    """HTTP/1.1 client for streamed responses.

    Connections are kept alive. There are no redirects or cookies, and nothing is read from the
    environment. Create it inside a running loop.
    """

    def __init__(
        self,
        *,
        limit_per_host: int = CONNECTIONS_MAX,
        idle_timeout_s: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        """`ssl_context` is for origins without certificates of their own."""
        self._limit = limit_per_host
        self._idle_timeout_s = idle_timeout_s
        self._tls = ssl_context
        self._proxies = proxies
        self._pools: dict[Origin, Pool] = {}
        self._make = partial(
            UpstreamConnection,
            asyncio.get_running_loop(),
            buffer=memoryview(bytearray(BUFFER_MAX)),
            budget=ReceiveBudget(),
        )

    async def post(
        self, url: Url, headers: Mapping[str, str], body: bytes, *, connect_timeout_s: float
    ) -> HttpResponse:
        """Send a request whose head is not reused. See `send`."""
        return await self.send(PostHead(url, headers), body, connect_timeout_s=connect_timeout_s)

    async def send(
        self,
        head: PostHead,
        body: bytes,
        *,
        connect_timeout_s: float,
        on_sent: Callable[[], None] | None = None,
    ) -> HttpResponse:
        """Send `body`, and return once status and headers have arrived.

        `connect_timeout_s` limits only the time to get a connection. A kept-alive connection that
        turns out to be closed is replaced once. `on_sent` is called when there is a connection,
        just before the request is written to it. Raises HttpError.
        """
        pool = self._pools.get(head.origin) or self._add_pool(head.origin)
        if not pool.enter_at_once():
            await pool.enter(connect_timeout_s)
        sent = head.to_proxy(len(body), pool.proxy_fields) if pool.forwards else head.of(len(body))
        try:
            connection = pool.take()
            if connection is not None:
                if on_sent is not None:
                    on_sent()
                try:
                    incoming = await connection.exchange(sent, body)
                except HttpError as error:
                    if error.kind is not HttpErrorKind.DISCONNECTED or not connection.was_stale:
                        raise
                    connection = None
            if connection is None:
                connection = await pool.connect(connect_timeout_s)
                if on_sent is not None:
                    on_sent()
                incoming = await connection.exchange(sent, body)
        except BaseException:
            pool.leave(None)
            raise
        response = HttpResponse(incoming, connection, pool)
        if pool.forwards and response.status == AUTHENTICATION_REQUIRED:
            response.close()
            raise HttpError(HttpErrorKind.PROXY, f"the proxy answered {response.status}")
        return response

    async def connect(self, url: Url, *, timeout_s: float) -> None:
        """Establish a connection, send nothing, and keep it for the next request.

        Raises HttpError.
        """
        pool = self._pools.get(url.origin) or self._add_pool(url.origin)
        if not pool.enter_at_once():
            await pool.enter(timeout_s)
        connection = None
        try:
            connection = await pool.connect(timeout_s)
        finally:
            pool.leave(connection)

    async def close(self) -> None:
        """Close all connections, including those whose responses are being read."""
        for pool in self._pools.values():
            await pool.close()

    @property
    def in_use(self) -> int:
        """Connections that carry an exchange, or are being established for one."""
        return sum(pool.in_use for pool in self._pools.values())

    def declare_metrics(self, counters: PlainMetrics) -> None:
        """Declare the metric of the connections."""
        counters.observable_gauge(
            "upstream_connections",
            "Connections to providers that carry a call.",
            lambda: self.in_use,
        )

    def _add_pool(self, origin: Origin) -> Pool:
        pool = self._pools[origin] = Pool(
            origin,
            limit=self._limit,
            idle_timeout_s=self._idle_timeout_s,
            tls=self._tls_of(origin) if origin.secure else None,
            proxy=self._proxies.to(origin),
            make=self._make,
        )
        return pool

    def _tls_of(self, origin: Origin) -> ssl.SSLContext:
        if origin.tls is not None:
            try:
                return origin.tls.context()
            except OSError as error:
                raise HttpError(HttpErrorKind.TLS, str(error)) from None
        if self._tls is None:
            # Reading the system's authorities takes up to 50 ms: only if TLS is used.
            self._tls = upstream_context()
        return self._tls
