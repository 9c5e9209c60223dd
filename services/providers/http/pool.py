"""Connection pool of one origin: sends requests, limits and reuses connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable

import aiohappyeyeballs

from services.providers.http.errors import HttpError, HttpErrorKind
from services.providers.http.proxy import AUTHENTICATION_REQUIRED, Proxy
from services.providers.http.request import Origin, PostHead
from services.providers.http.response import HttpResponse
from services.providers.http.upstream_connection import UpstreamConnection

ADDRESS_DELAY_S = 0.25
"""Delay before the next address is tried in parallel (RFC 8305, section 5)."""
SOCKET_RECEIVE_BUFFER = 64 * 1024
"""SO_RCVBUF, in bytes; Linux doubles it for its own use. By default the kernel grows it to 6 MB for
each stream that waits for a slow client."""

_Callback = Callable[[UpstreamConnection], None]


class Pool:
    """Pool of connections to one origin. The most recently used connection is reused first."""

    def __init__(
        self,
        origin: Origin,
        *,
        limit: int,
        idle_timeout_s: float,
        tls: ssl.SSLContext | None,
        proxy: Proxy | None,
        make: Callable[[_Callback, _Callback], UpstreamConnection],
    ) -> None:
        """`make` creates a connection that calls back when it is free, and at its end.

        Without `tls`: plain text. Without `proxy`: straight to the origin.
        """
        self._make = make
        self._origin = origin
        self._idle_timeout_s = idle_timeout_s
        self._tls = tls
        self._proxy = proxy
        self._forwarder = proxy if tls is None else None  # It forwards each request.
        self._loop = asyncio.get_running_loop()
        self._limit = self._free = limit
        self._waiting: deque[asyncio.Future[UpstreamConnection | None]] = deque()
        self._idle: deque[UpstreamConnection] = deque()  # The longest idle are on the left.
        self._open: set[UpstreamConnection] = set()
        self._all_lost = asyncio.Event()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def in_use(self) -> int:
        """Slots that are taken."""
        return self._limit - self._free

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
        turns out to be closed is replaced once. `on_sent` is called when the request has been
        written to a connection. Raises HttpError.
        """
        forwarder = self._forwarder
        text = head.to_proxy(forwarder.fields) if forwarder else head.text
        if self._free and self._idle:
            self._free -= 1
            connection = self._idle.pop()
        else:
            connection = await self.open(connect_timeout_s)
        for may_replace in (True, False):
            response = connection.exchange(text, body)
            if on_sent is not None and response.failure is None:
                on_sent()
            try:
                await response.arrival
            except BaseException:
                response.close()
                raise
            if (failure := response.failure) is None or response.status:
                break
            response.close()
            if not (may_replace and connection.was_stale):
                raise failure
            connection = await self.open(connect_timeout_s)
        if forwarder and response.status == AUTHENTICATION_REQUIRED:
            response.close()
            raise HttpError(HttpErrorKind.PROXY, f"the proxy answered {response.status}")
        return response

    async def open(self, timeout_s: float) -> UpstreamConnection:
        """Take a slot and a new connection, or wait for those of another call.

        They are given first come, first served. Raises HttpError (DNS, UNREACHABLE, PROXY, TLS,
        TIMEOUT).
        """
        if self._closed:
            raise HttpError(HttpErrorKind.UNREACHABLE, "the client is closed")
        if self._free:
            self._free -= 1
            left = None
        else:
            left = await self._left_by_another(timeout_s)
        try:
            return left or await self._connected(timeout_s)
        except BaseException:
            self.leave(None)
            raise

    def leave(self, connection: UpstreamConnection | None) -> None:
        """Release a slot, with the connection that was used, in any state.

        The longest waiter gets both, if there is one.
        """
        if connection is not None:
            if self._closed or not connection.reusable:
                connection.abort()
                connection = None
            else:
                connection.free_since = self._loop.time()
        while self._waiting:
            given = self._waiting.popleft()
            if not given.done():
                given.set_result(connection)
                return
        self._free += 1
        if connection is not None:
            self._idle.append(connection)
            if self._sweep is None:
                self._sweep = self._loop.call_later(self._idle_timeout_s, self._expire)

    def _failed(self, kind: HttpErrorKind, detail: str) -> HttpError:
        through = f"through the proxy {self._proxy.address}: " if self._proxy else ""
        return HttpError(kind, through + detail)

    async def close(self) -> None:
        """Close all connections, including those in use, and wait until they are closed."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._open):
            connection.abort()
        if self._open:
            await self._all_lost.wait()

    async def _left_by_another(self, timeout_s: float) -> UpstreamConnection | None:
        """Wait for a slot. Returns the connection that was left with it, if it can be reused."""
        given: asyncio.Future[UpstreamConnection | None] = self._loop.create_future()
        self._waiting.append(given)
        try:
            async with asyncio.timeout(timeout_s):
                connection = await given
        except BaseException as error:
            if not given.cancelled():
                self.leave(given.result())  # It was given at the same moment.
            elif given in self._waiting:
                self._waiting.remove(given)
            if isinstance(error, TimeoutError):
                busy = HttpError(HttpErrorKind.TIMEOUT, "all connections are in use")
                raise busy from None
            raise
        if connection is None or connection.reusable:
            return connection
        connection.abort()
        return None

    async def _connected(self, timeout_s: float) -> UpstreamConnection:
        """Establish a connection, or raise HttpError."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._connect()
        except TimeoutError:
            raise self._failed(HttpErrorKind.TIMEOUT, f"no connection in {timeout_s:g} s") from None
        except HttpError as error:
            raise self._failed(error.kind, str(error)) from None
        except socket.gaierror as error:
            raise self._failed(HttpErrorKind.DNS, str(error)) from None
        except ssl.SSLError as error:
            raise self._failed(HttpErrorKind.TLS, str(error)) from None
        except (OSError, RuntimeError) as error:  # uvloop raises either.
            raise self._failed(HttpErrorKind.UNREACHABLE, str(error)) from None

    async def _connect(self) -> UpstreamConnection:
        host, port = self._proxy[:2] if self._proxy else self._origin[:2]
        addresses = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # uvloop's create_connection tries addresses one after the other only.
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=ADDRESS_DELAY_S, loop=self._loop, socket_factory=_socket
        )
        if self._proxy and self._tls:
            try:
                await self._proxy.tunnel(self._loop, sock, self._origin)
            except BaseException:
                sock.close()
                raise
        transport, connection = await self._loop.create_connection(
            lambda: self._make(self.leave, self._lost), sock=sock
        )
        self._open.add(connection)
        self._all_lost.clear()
        if self._tls is not None:
            try:
                connection.secured(
                    await self._loop.start_tls(
                        transport, connection, self._tls, server_hostname=self._origin.host
                    )
                )
            except BaseException:
                transport.abort()
                self._lost(connection)
                raise
        if self._closed:
            connection.abort()
        return connection

    def _lost(self, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._all_lost.set()

    def _expire(self) -> None:
        """Close connections that have been idle for too long, and schedule the next check."""
        self._sweep = None
        now = self._loop.time()
        while self._idle and self._idle[0].free_since + self._idle_timeout_s <= now:
            self._idle.popleft().abort()
        if self._idle:
            due = self._idle[0].free_since + self._idle_timeout_s
            self._sweep = self._loop.call_at(due, self._expire)


def _socket(address: aiohappyeyeballs.AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_RECEIVE_BUFFER)
    return sock
