"""HTTP client: connection pools of all origins."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial

from services.common.plain_metrics import PlainMetrics
from services.common.tls import upstream_context
from services.providers.http.errors import HttpError, HttpErrorKind
from services.providers.http.pool import Pool
from services.providers.http.proxy import Proxies
from services.providers.http.request import Origin, Url
from services.providers.http.response import BUFFER_MAX, ReceiveBudget
from services.providers.http.upstream_connection import UpstreamConnection

CONNECTIONS_MAX = 65_535
"""Connections to one origin: the number of ports. Concurrency is limited at admission, so that no
admitted call waits for a connection."""
NO_PROXIES = Proxies()


class Pools(dict[Origin, Pool]):
    """Connection pools by origin, each made at its first use."""

    def __init__(self, make: Callable[[Origin], Pool]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, origin: Origin) -> Pool:
        pool = self[origin] = self._make(origin)
        return pool


class HttpClient:
    """HTTP/1.1 client for streamed responses: `client.pools[origin].send(…)` sends a request.

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
        self.pools = Pools(self._new_pool)
        self._connection = partial(
            UpstreamConnection,
            asyncio.get_running_loop(),
            buffer=memoryview(bytearray(BUFFER_MAX)),
            budget=ReceiveBudget(),
        )

    async def connect(self, url: Url, *, timeout_s: float) -> None:
        """Establish a connection, send nothing, and keep it for the next request.

        Raises HttpError.
        """
        pool = self.pools[url.origin]
        pool.leave(await pool.open(timeout_s))

    async def close(self) -> None:
        """Close all connections, including those whose responses are being read."""
        for pool in self.pools.values():
            await pool.close()

    @property
    def in_use(self) -> int:
        """Connections that carry an exchange, or are being established for one."""
        return sum(pool.in_use for pool in self.pools.values())

    def declare_metrics(self, counters: PlainMetrics) -> None:
        """Declare the metric of the connections."""
        counters.observable_gauge(
            "upstream_connections",
            "Connections to providers that carry a call.",
            lambda: self.in_use,
        )

    def _new_pool(self, origin: Origin) -> Pool:
        return Pool(
            origin,
            limit=self._limit,
            idle_timeout_s=self._idle_timeout_s,
            tls=self._tls_of(origin) if origin.secure else None,
            proxy=self._proxies.to(origin),
            make=self._connection,
        )

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
