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

CLIENTS = 100
TURNS_MAX = 10
"""A client takes a few: one to be taken, one for its transport, one for its protocol."""


class Guest(asyncio.Protocol):
    """A client that says nothing."""

    def __init__(self, came: Callable[[asyncio.WriteTransport], None]) -> None:
        self._came = came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It has come."""
        # uvloop's transports are none of asyncio's classes, but write as those do.
        self._came(cast("asyncio.WriteTransport", transport))


class Guests(asyncio.Queue[asyncio.WriteTransport]):
    """The clients that have come."""

    def __call__(self) -> asyncio.Protocol:
        """Talks to one."""
        return Guest(self.put_nowait)

    def dismiss(self) -> None:
        """Lets them go."""
        while not self.empty():
            self.get_nowait().abort()


async def crowd() -> int:
    """How many turns of the loop it takes to take in many clients who wait already."""
    (link,) = await listen("127.0.0.1", 0)
    guests = Guests()
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            stack.enter_context(socket.create_connection(link.getsockname()))
        stack.enter_context(accepting(guests, [link]))
        turns = 0
        while guests.qsize() < CLIENTS:
            await asyncio.sleep(0)
            turns += 1
    guests.dismiss()
    return turns


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_many_come_in_at_once(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """However many wait, a few turns of the loop are enough: on a full core a turn is long."""
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(crowd()) <= TURNS_MAX


@contextmanager
def no_descriptors() -> Iterator[None]:
    """The process has no descriptor left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


async def test_no_descriptor_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """Who comes then waits in the queue, which costs no turn of the loop, and is taken later."""
    (link,) = await listen("127.0.0.1", 0)
    guests = Guests()
    with socket.create_connection(link.getsockname()), ExitStack() as stack:
        with no_descriptors():
            stack.enter_context(accepting(guests, [link]))
            for _ in range(TURNS_MAX):
                await asyncio.sleep(0)
            assert guests.empty()
        (await guests.get()).abort()

    (record,) = caplog.records
    assert record.getMessage() == "accept.failed"
    assert vars(record)["reason"] == "[Errno 24] Too many open files"


async def test_who_has_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """A client that resets its connection while it waits leaves nothing behind, nor a line."""
    (link,) = await listen("127.0.0.1", 0)
    guests = Guests()
    with socket.create_connection(link.getsockname()) as left:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with socket.create_connection(link.getsockname()) as stays, accepting(guests, [link]):
        guest = await guests.get()
        while guest.get_extra_info("peername") != stays.getsockname():
            guest = await guests.get()
        guest.abort()

    guests.dismiss()
    assert not caplog.records


async def test_nobody_comes_after_the_end() -> None:
    """The sockets are closed, and who is on the way in is let go."""
    (link,) = await listen("127.0.0.1", 0)
    where = link.getsockname()
    guests = Guests()
    with socket.create_connection(where) as client:
        client.settimeout(10)
        with accepting(guests, [link]):
            pass
        with pytest.raises(ConnectionError):
            client.recv(1)

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where)
    assert guests.empty()


async def test_a_name_with_two_addresses() -> None:
    """Each has a socket, where IPv6's takes no clients of IPv4."""
    sockets = await listen("localhost", 0)
    for link in sockets:
        if link.family == socket.AF_INET6:
            assert link.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        link.close()
    assert {link.family for link in sockets} <= {socket.AF_INET, socket.AF_INET6}


async def test_an_address_that_is_taken() -> None:
    """It is an error, and no socket of the others stays open."""
    (link,) = await listen("127.0.0.1", 0)
    with link, pytest.raises(OSError, match="Address already in use"):
        await listen("127.0.0.1", link.getsockname()[1])
