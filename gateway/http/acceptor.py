"""Takes the clients that wait at a listening socket: many in a turn of the loop.

uvloop's own servers take one in a turn, as libuv does since 1.45
(https://github.com/libuv/libuv/pull/3696). That is enough while turns are short. With turns of
20 ms, as on a full core, fifty clients get in a second, and the others wait up to half a minute in
a queue where nobody tells them to come back.
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
"""Clients that may wait to be taken. With the usual 128 those beyond it, when hundreds come at
once, are dropped by the kernel and try again after a second."""

AT_ONCE = 128
"""Clients that are taken in a turn, at some 50 µs each."""

PAUSE_S = 1.0
"""How long none is taken where the system has no more descriptors or memory."""

_log = logging.getLogger(__name__)


async def listen(host: str, port: int) -> Sequence[socket.socket]:
    """Sockets that clients may come to: one for each address that `host` has.

    Raises:
        OSError: it cannot listen there.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            link = socket.socket(family, kind, protocol)
            sockets.append(link)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Else it would take IPv4's port as well, which another socket of ours has.
                link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            link.bind(address)
            link.listen(BACKLOG)
            link.setblocking(False)
    except OSError:
        for link in sockets:
            link.close()
        raise
    return sockets


@contextmanager
def accepting(
    protocol: Callable[[], asyncio.Protocol],
    sockets: Sequence[socket.socket],
    tls: ssl.SSLContext | None = None,
) -> Iterator[None]:
    """Has each client that comes talk to a protocol of its own. Closes the sockets in the end."""
    acceptors = [_Acceptor(protocol, link, tls) for link in sockets]
    try:
        yield
    finally:
        for acceptor in acceptors:
            acceptor.close()


class _Acceptor:
    """Of one listening socket, which is its own."""

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        link: socket.socket,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._protocol = protocol
        self._link = link
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._at_once = within_descriptors(AT_ONCE, ACCEPT_DESCRIPTORS_SHARE)
        self._pause: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[object]] = set()
        """Those of clients that are shaking hands."""
        self._resume()

    def close(self) -> None:
        """Takes no more, and lets those go that have not quite arrived."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._link)
        self._link.close()
        for task in self._arriving:
            task.cancel()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._link, self._accept)

    def _accept(self) -> None:
        for _ in range(self._at_once):
            try:
                client, _ = self._link.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # It left while it waited.
            except OSError as error:
                _log.error("accept.failed", extra={"error": str(error)})
                self._loop.remove_reader(self._link)
                self._pause = self._loop.call_later(PAUSE_S, self._resume)
                return
            client.setblocking(False)
            welcome = self._loop.connect_accepted_socket(self._protocol, client, ssl=self._tls)
            task = self._loop.create_task(welcome)
            self._arriving.add(task)
            task.add_done_callback(partial(self._arrived, client))

    def _arrived(self, client: socket.socket, task: asyncio.Task[object]) -> None:
        self._arriving.discard(task)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            client.close()
        # It left, or spoke no TLS: ssl.SSLError is one.
        if error is not None and not isinstance(error, OSError):
            _log.error("accept.failed", exc_info=error)
