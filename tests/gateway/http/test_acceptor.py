from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

import pytest
import uvloop

from gateway.http.acceptor import accepting, listen
from services.common.tls import ListenerTls
from tests.stand.certificates import Certificates

CLIENTS = 100
TURNS_MAX = 10
"""A connection takes a few: for the accept, for its transport, for its protocol."""


class Server(asyncio.Protocol):
    """Protocol that only reports its connection."""

    def __init__(self, accepted: Callable[[asyncio.WriteTransport], None]) -> None:
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Report the connection."""
        # uvloop's transports are none of asyncio's classes, but write as those do.
        self._accepted(cast("asyncio.WriteTransport", transport))


class Connections(asyncio.Queue[asyncio.WriteTransport]):
    """The accepted connections."""

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of the next connection."""
        return Server(self.put_nowait)

    def abort(self) -> None:
        """Abort all of them."""
        while not self.empty():
            self.get_nowait().abort()


async def turns_to_accept() -> int:
    """Return the number of loop turns in which many waiting connections are accepted."""
    (listener,) = await listen("127.0.0.1", 0)
    connections = Connections()
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        stack.enter_context(accepting(connections, [listener]))
        turns = 0
        while connections.qsize() < CLIENTS:
            await asyncio.sleep(0)
            turns += 1
    connections.abort()
    return turns


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_many_connections_are_accepted_in_few_turns(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """On a full core a turn of the loop is long."""
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(turns_to_accept()) <= TURNS_MAX


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Take all descriptors of the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


async def test_without_descriptors_connections_wait_in_the_queue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They cost no turn of the loop, and are accepted once there is a descriptor."""
    (listener,) = await listen("127.0.0.1", 0)
    connections = Connections()
    with socket.create_connection(listener.getsockname()), ExitStack() as stack:
        with no_descriptors():
            stack.enter_context(accepting(connections, [listener]))
            for _ in range(TURNS_MAX):
                await asyncio.sleep(0)
            assert connections.empty()
        (await connections.get()).abort()

    (record,) = caplog.records
    assert record.getMessage() == "accept.failed"
    assert vars(record)["reason"] == "[Errno 24] Too many open files"


async def test_a_client_that_left_the_queue_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that is reset while it waits is skipped, without a line in the log."""
    (listener,) = await listen("127.0.0.1", 0)
    connections = Connections()
    with socket.create_connection(listener.getsockname()) as left:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with (
        socket.create_connection(listener.getsockname()) as stays,
        accepting(connections, [listener]),
    ):
        accepted = await connections.get()
        while accepted.get_extra_info("peername") != stays.getsockname():
            accepted = await connections.get()
        accepted.abort()

    connections.abort()
    assert not caplog.records


async def test_after_the_end_connections_are_refused() -> None:
    """The sockets close, and so do connections that are being accepted."""
    (listener,) = await listen("127.0.0.1", 0)
    address = listener.getsockname()
    connections = Connections()
    with socket.create_connection(address) as client:
        client.settimeout(10)
        with accepting(connections, [listener]):
            pass
        with pytest.raises(ConnectionError):
            client.recv(1)

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    assert connections.empty()


async def test_a_name_with_two_addresses_has_two_sockets() -> None:
    """IPv6's does not accept IPv4."""
    sockets = await listen("localhost", 0)
    for listener in sockets:
        if listener.family == socket.AF_INET6:
            assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        listener.close()
    assert {listener.family for listener in sockets} <= {socket.AF_INET, socket.AF_INET6}


async def test_an_address_in_use_is_an_error() -> None:
    """No socket stays open."""
    (listener,) = await listen("127.0.0.1", 0)
    with listener, pytest.raises(OSError, match="Address already in use"):
        await listen("127.0.0.1", listener.getsockname()[1])


async def test_a_tls_handshake_has_a_timeout(tmp_path: Path) -> None:
    """A client that says nothing is closed, as one whose head does not end."""
    (listener,) = await listen("127.0.0.1", 0)
    certificate, key = Certificates(tmp_path).issue("edge")
    tls = ListenerTls(certificate=certificate, key=key).http_context()
    connections = Connections()
    with accepting(connections, [listener], tls, 0.1):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()

    assert connections.empty()
