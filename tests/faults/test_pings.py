"""Services that freeze, and those that are only silent or busy."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from gateway.rpc.service_channel import PING_INTERVAL_MS, PING_TIMEOUT_MS, open_channel
from services.rpc import listener

NOTICED_WITHIN_MS = 5_000
CLIENT_NOTICED_WITHIN_MS = 15_000
STRIKES = 2
"""So many pings too early are forgiven: https://github.com/grpc/grpc, doc/keepalive.md."""


@asynccontextmanager
async def running() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A silent service, and where it listens."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stand.silent_service"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


async def begun(channel: grpc.aio.Channel) -> tuple[int, Any]:
    """A stream whose only message has arrived: the process, and the call."""
    stream: Any = channel.unary_stream("/silent/Stream")
    call = stream(b"")
    return int(await call.read()), call


async def asked(channel: grpc.aio.Channel, method: str, request: bytes = b"") -> bytes:
    """The service's answer to a call."""
    call: Any = channel.unary_unary(f"/silent/{method}")
    answer: bytes = await call(request)
    return answer


async def answered_in_a_row(channel: grpc.aio.Channel, times: int) -> None:
    """Waits until so many calls in a row are answered.

    A call that is started while its connection ends may end with it.
    """
    answered = 0
    while answered < times:
        try:
            assert await asked(channel, "Ask") == b"here"
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            answered = 0
        else:
            answered += 1


def test_pings_notice_a_freeze_in_five_seconds_and_are_permitted() -> None:
    """A frozen service is noticed within five seconds, and the service permits the pings.

    Rows 95, 120.
    """
    assert PING_INTERVAL_MS + PING_TIMEOUT_MS < NOTICED_WITHIN_MS
    assert PING_INTERVAL_MS > listener.PING_INTERVAL_MIN_MS


def test_pings_of_the_service_notice_a_frozen_client_in_fifteen_seconds() -> None:
    """As `deploy/README.md` says. `test_processes.py` freezes an edge."""
    assert listener.PING_INTERVAL_MS + listener.PING_TIMEOUT_MS <= CLIENT_NOTICED_WITHIN_MS


async def test_a_frozen_service_fails_over() -> None:
    """Its running calls end, and new calls go to the other service. Row 95."""
    async with (
        running() as (frozen, first),
        running() as (_, second),
        open_channel(f"ipv4:{first},{second}") as channel,
    ):
        calls: dict[int, Any] = {}
        while len(calls) < 2:
            process, call = await begun(channel)
            calls.setdefault(process, call)

        frozen.send_signal(signal.SIGSTOP)

        async with asyncio.timeout(60):
            assert await calls.pop(frozen.pid).code() is grpc.StatusCode.UNAVAILABLE
            await answered_in_a_row(channel, 20)
        (other,) = calls.values()
        assert not other.done()
        other.cancel()


@pytest.mark.parametrize("busy", [False, pytest.param(True, marks=pytest.mark.nightly)])
async def test_a_silent_or_busy_service_keeps_its_streams(busy: bool) -> None:
    """Neither silence nor a blocked loop ends a stream: pings are few enough and answered.

    Row 120.
    """
    quiet_ms = (STRIKES + 3) * PING_INTERVAL_MS
    async with running() as (_, address), open_channel(address) as channel:
        _, call = await begun(channel)

        if busy:
            assert await asked(channel, "Busy", b"%d" % quiet_ms) == b"done"
        else:
            await asyncio.wait({asyncio.ensure_future(call.code())}, timeout=quiet_ms / 1000)

        assert not call.done()
        assert await asked(channel, "Ask") == b"here"
        call.cancel()
