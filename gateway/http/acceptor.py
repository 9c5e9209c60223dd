"""Acceptor of connections: many in one turn of the loop.

uvloop's own servers accept one connection in a turn, as libuv does since 1.45
(https://github.com/libuv/libuv/pull/3696). That is enough while turns are short. With turns of
20 ms, as on a full core, fifty clients a second are accepted, and the others wait up to half a
minute in the kernel's queue, without a refusal.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from gateway.overload.connection_limit import within_descriptors
from gateway.overload.thresholds import ACCEPT_DESCRIPTORS_SHARE

BACKLOG = 4096
"""Length of the kernel's queue of connections. With the usual 128 the kernel drops those beyond it
when hundreds arrive at once, and they retry after a second."""

ACCEPTS_PER_TURN = 128
"""Connections that are accepted in one turn of the loop, at some 50 µs each."""

PAUSE_S = 1.0
"""Pause after the system had no more descriptors or memory."""

HANDSHAKE_TIMEOUT_S = 15.0
"""How long a TLS handshake may take, unless the caller says otherwise."""

_log = logging.getLogger(__name__)


async def listen(host: str, port: int, *, shared: bool = False) -> Sequence[socket.socket]:
    """Return listening sockets, one for each address of `host`.

    With `shared`, other processes of this user may listen there in the same way, and the kernel
    distributes the connections. Raises OSError: an address is unknown or in use.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # Without it the socket would take IPv4's port as well, which has its own socket.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


@contextmanager
def accepting(
    protocol: Callable[[], asyncio.Protocol],
    sockets: Sequence[socket.socket],
    tls: ssl.SSLContext | None = None,
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
) -> Iterator[None]:
    """Give each connection a protocol of its own. On the way out, close the sockets."""
    acceptors = [_Acceptor(protocol, listener, tls, handshake_timeout_s) for listener in sockets]
    try:
        yield
    finally:
        for acceptor in acceptors:
            acceptor.close()


class _Acceptor:
    """Acceptor of one listening socket, which it closes."""

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        handshake_timeout_s: float,
    ) -> None:
        self._protocol = protocol
        self._listener = listener
        self._tls = tls
        self._handshake_timeout_s = None if tls is None else handshake_timeout_s
        self._loop = asyncio.get_running_loop()
        self._accepts_per_turn = within_descriptors(ACCEPTS_PER_TURN, ACCEPT_DESCRIPTORS_SHARE)
        self._pause: asyncio.TimerHandle | None = None
        self._handshakes: set[asyncio.Task[object]] = set()
        self._resume()

    def close(self) -> None:
        """Accept no more connections, and abandon running handshakes."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._handshakes:
            task.cancel()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(self._accepts_per_turn):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # The client left the queue.
            except OSError as error:
                _log.error("accept.failed", extra={"reason": str(error)})
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(PAUSE_S, self._resume)
                return
            client.setblocking(False)
            handshake = self._loop.connect_accepted_socket(
                self._protocol,
                client,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake_timeout_s,
            )
            task = self._loop.create_task(handshake)
            self._handshakes.add(task)
            task.add_done_callback(partial(self._after_handshake, client))

    def _after_handshake(self, client: socket.socket, task: asyncio.Task[object]) -> None:
        self._handshakes.discard(task)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            client.close()
        # OSError: the client left, or did not speak TLS (ssl.SSLError).
        if error is not None and not isinstance(error, OSError):
            _log.error("accept.failed", exc_info=error)
