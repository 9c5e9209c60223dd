"""b.7: callers who leave, stall or come again."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.config import EdgeConfig
from services.completions.drains import DRAINS_MAX
from tests.faults.checked_gateway import (
    BEGIN,
    CHARGE,
    END,
    FINE,
    MODEL,
    PATH,
    PATIENCE_S,
    TEXT,
    WHOLE,
    piece,
)
from tests.faults.conftest import OpenWorld
from tests.faults.processes import CONFIG, asking, holds_are_closed, unread
from tests.stand.servers import running_server
from tests.stand.upstream import STALL, FakeUpstream, Line, Request, Script, json_answer, sse

Leave = Callable[[asyncio.StreamWriter], None]


def close(writer: asyncio.StreamWriter) -> None:
    """Closes in order."""
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Closes with an RST."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


def half_close(writer: asyncio.StreamWriter) -> None:
    """Says that it sends no more, and goes on listening."""
    writer.write_eof()


LEAVES = pytest.mark.parametrize("leave", [close, reset, half_close])


@LEAVES
@pytest.mark.parametrize("stream", [True, False])
async def test_066_leaves_while_waiting(open_world: OpenWorld, leave: Leave, stream: bool) -> None:
    """Before the first token: the provider is told to stop at once, and nothing is charged."""
    world = await open_world()
    world.play([STALL])

    async with world.dial(stream=stream) as (_, writer):
        request = await world.first.request()
        leave(writer)
        await asyncio.wait_for(request.left.wait(), 1)

    assert await world.charged() == (0, 0)
    assert world.metric("settle_total", outcome="voided") == 1
    assert world.second.requests == []


@LEAVES
async def test_066_leaves_in_the_middle(open_world: OpenWorld, leave: Leave) -> None:
    """What has come from the provider is charged, once; the log knows who left."""
    world = await open_world()
    world.play([BEGIN, STALL])

    async with world.dial() as (reader, writer):
        await reader.readuntil(b"canary-answer-")
        leave(writer)
        await asyncio.wait_for(world.first.requests[0].left.wait(), 1)

    calls, charge = await world.charged()
    assert calls == 1
    assert 0 < charge < CHARGE * 10
    assert len(world.log.of("call.ended", end="client_gone", code="CANCELLED")) == 1
    assert world.log.of("http.request", status=499)


@LEAVES
async def test_066_leaves_between_finish_and_usage(open_world: OpenWorld, leave: Leave) -> None:
    """The answer is there but its usage is not: our own count is charged."""
    world = await open_world()
    world.play([BEGIN + sse(piece("", "stop")), STALL])

    async with world.dial() as (reader, writer):
        await reader.readuntil(b"canary-answer-")
        leave(writer)
        await asyncio.wait_for(world.first.requests[0].left.wait(), 1)

    assert (await world.charged())[0] == 1


@LEAVES
async def test_066_leaves_after_the_end(open_world: OpenWorld, leave: Leave) -> None:
    """Whoever has got [DONE] pays what the provider says."""
    world = await open_world()
    world.play(FINE)

    async with world.dial() as (reader, writer):
        await reader.readuntil(b"[DONE]")
        leave(writer)
        assert await world.charged() == (1, CHARGE)


@LEAVES
async def test_067_leaves_a_whole_answer(open_world: OpenWorld, leave: Leave) -> None:
    """A whole answer is given up like a stream, also when part of it has come."""
    world = await open_world()
    (answer,) = WHOLE
    assert isinstance(answer, bytes)
    sent = asyncio.Event()

    async def tell(_: Line) -> None:
        sent.set()

    world.play([answer[:-20], tell, STALL])

    async with world.dial(stream=False) as (_, writer):
        await sent.wait()
        leave(writer)
        await asyncio.wait_for(world.first.requests[0].left.wait(), 1)

    assert await world.charged() == (0, 0)


DRAINING = {"on_disconnect": "drain"}


@LEAVES
async def test_068_drains(open_world: OpenWorld, leave: Leave) -> None:
    """Where the channel says so the rest is read, and what the provider says is charged once."""
    world = await open_world(first=DRAINING)
    goes_on = asyncio.Event()
    world.play([BEGIN, goes_on, END])

    async with world.dial() as (reader, writer):
        await reader.readuntil(b"canary-answer-")
        leave(writer)
        await world.until(lambda: world.metric("drains") == 1)
        goes_on.set()
        assert await world.charged() == (1, CHARGE)

    assert world.metric("settle_total", outcome="settled") == 1
    (ended,) = world.log.of("call.ended")
    assert (ended["end"], ended["charge_nano"]) == ("client_gone", 0)
    (drained,) = world.log.of("call.drained")
    assert drained["request_id"] == ended["request_id"]
    assert drained["charge_nano"] == CHARGE


@LEAVES
@pytest.mark.parametrize("stream", [True, False])
async def test_068_drains_what_has_not_begun(
    open_world: OpenWorld, leave: Leave, stream: bool
) -> None:
    """Before the first token, and where all comes at once, the provider works on, and is paid."""
    world = await open_world(first=DRAINING)
    goes_on = asyncio.Event()
    world.play([goes_on, *(FINE if stream else WHOLE)])

    async with world.dial(stream=stream) as (_, writer):
        await world.first.request()
        leave(writer)
        await world.until(lambda: world.metric("drains") == 1)
        goes_on.set()
        assert await world.charged() == (1, CHARGE)

    (ended,) = world.log.of("call.ended")
    assert (ended["end"], ended["charge_nano"]) == ("client_gone", 0)
    (drained,) = world.log.of("call.drained", charge_nano=CHARGE)
    assert drained["dur_ms"] >= ended["dur_ms"]


async def test_068_drains_half_a_document(open_world: OpenWorld) -> None:
    """A whole answer of which a part has come is read to its end."""
    world = await open_world(first=DRAINING)
    goes_on, sent = asyncio.Event(), asyncio.Event()
    (answer,) = WHOLE
    assert isinstance(answer, bytes)

    async def tell(_: Line) -> None:
        sent.set()

    world.play([answer[:-20], tell, goes_on, answer[-20:]])

    async with world.dial(stream=False) as (_, writer):
        await sent.wait()
        close(writer)
        await world.until(lambda: world.metric("drains") == 1)
        goes_on.set()
        assert await world.charged() == (1, CHARGE)


async def test_068_what_never_begins_costs_nothing(open_world: OpenWorld) -> None:
    """A provider that has said nothing within `drain_seconds` is left, and nothing is charged."""
    world = await open_world(first={**DRAINING, "drain_seconds": 0.1})
    world.play([STALL])

    async with world.dial():
        await world.first.request()
    await asyncio.wait_for(world.first.requests[0].left.wait(), PATIENCE_S)

    assert await world.charged() == (0, 0)
    assert world.metric("settle_total", outcome="voided") == 1
    assert len(world.log.of("call.drained", charge_nano=0)) == 1


async def test_068_nobody_is_asked_for_who_has_left(open_world: OpenWorld) -> None:
    """A provider that fails while it is drained is the last one: no other does the work."""
    world = await open_world(first=DRAINING)
    goes_on = asyncio.Event()
    world.play([goes_on, json_answer({"error": {"message": "busy"}}, 503)])

    async with world.dial() as (_, writer):
        await world.first.request()
        close(writer)
        await world.until(lambda: world.metric("drains") == 1)
        goes_on.set()
        assert await world.charged() == (0, 0)

    assert world.second.requests == []


async def test_068_drains_only_where_it_is_said(open_world: OpenWorld) -> None:
    """What counts is who is at it: the next channel, which cancels, is left at once."""
    world = await open_world(first=DRAINING)
    world.play([json_answer({"error": {"message": "busy"}}, 503)], second=[STALL])

    async with world.dial() as (_, writer):
        request = await world.second.request()
        close(writer)
        await asyncio.wait_for(request.left.wait(), 1)

    assert await world.charged() == (0, 0)
    assert world.log.of("call.drained") == []


@pytest.mark.parametrize("stream", [True, False])
async def test_068_comes_again_for_what_was_drained(open_world: OpenWorld, stream: bool) -> None:
    """A call with a name is busy while it is drained; then its answer is there, paid once."""
    world = await open_world(first=DRAINING)
    goes_on = asyncio.Event()
    world.play([goes_on, *(FINE if stream else WHOLE)])
    name = {"Idempotency-Key": "order-66"}

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await world.ask(headers=name, stream=stream)
    await world.until(lambda: world.metric("drains") == 1)
    assert (await world.ask(headers=name, stream=stream)).code == "idempotency_in_progress"
    goes_on.set()
    await world.calm()
    again = await world.ask(headers=name, stream=stream)

    assert (again.status, again.content) == (200, TEXT)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(world.first.requests) == 1
    assert await world.charged() == (1, CHARGE)


async def test_068_a_drain_takes_no_longer_than_it_may(open_world: OpenWorld) -> None:
    """A provider that says nothing more is left after `drain_seconds`; our count is charged."""
    world = await open_world(first={**DRAINING, "drain_seconds": 0.1})
    world.play([BEGIN, STALL])

    async with world.dial() as (reader, writer):
        await reader.readuntil(b"canary-answer-")
        close(writer)
        await asyncio.wait_for(world.first.requests[0].left.wait(), PATIENCE_S)

    calls, charge = await world.charged()
    assert calls == 1
    assert charge > 0
    assert len(world.log.of("call.drained")) == 1


async def test_068_drains_are_bounded(open_world: OpenWorld) -> None:
    """When everybody leaves at once, so many are read on; the others are cut and counted."""
    world = await open_world(first=DRAINING)
    goes_on = asyncio.Event()
    world.play([BEGIN, goes_on, END])
    more = 6

    async def leave_early() -> None:
        async with world.dial() as (reader, _):
            await reader.readuntil(b"canary-answer-")

    await asyncio.gather(*(leave_early() for _ in range(DRAINS_MAX + more)))
    await world.until(lambda: world.metric("drains") == DRAINS_MAX)
    await world.until(lambda: world.metric("holds_open") == DRAINS_MAX)
    goes_on.set()

    assert (await world.charged())[0] == DRAINS_MAX + more
    assert len(world.log.of("call.drained", charge_nano=CHARGE)) == DRAINS_MAX


async def test_065e_and_070_never_reads(open_world: OpenWorld) -> None:
    """A caller that reads nothing stops the provider, and is cut off after a while."""
    edge = EdgeConfig(write_timeout_s=0.3)
    world = await open_world(edge=edge)
    page = sse(piece("x" * 8000))
    sent = 0

    async def flood(line: Line) -> None:
        nonlocal sent
        while True:
            line.writer.write(page)
            await line.writer.drain()
            sent += len(page)

    script: Script = [BEGIN, flood]
    world.play(script)

    async with world.dial() as (_, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        request = await world.first.request()
        await asyncio.wait_for(request.left.wait(), PATIENCE_S)

    assert sent < 16 * 2**20
    calls, charge = await world.charged()
    assert calls == 1
    assert charge > 0


async def test_070_pauses_and_goes_on(open_world: OpenWorld) -> None:
    """Who reads slowly, or not for a while that is short enough, gets all of it."""
    world = await open_world(edge=EdgeConfig(write_timeout_s=1.0))
    world.play([BEGIN, sse(*[piece("x" * 8000)] * 400), END])

    async with world.dial() as (reader, writer):
        link = writer.get_extra_info("socket")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        got = await reader.readuntil(b"canary-answer-")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)  # The pause that is forgiven.
        assert world.metric("inflight") == 1
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        while b"[DONE]" not in got and (data := await reader.read(65_536)):
            got = got[-20:] + data

    assert b"[DONE]" in got
    assert await world.charged() == (1, CHARGE)
    assert len(world.log.of("call.ended", end="stop")) == 1


async def test_072_comes_again(open_world: OpenWorld) -> None:
    """An SDK's retry is a call of its own unless it has a name."""
    world = await open_world()
    world.play(FINE)

    for count in "012":
        reply = await world.ask(headers={"x-stainless-retry-count": count})
        assert reply.status == 200

    assert await world.charged() == (3, 3 * CHARGE)


async def test_073_waits_long(open_world: OpenWorld) -> None:
    """While a provider thinks, the caller of a stream hears that we live."""
    world = await open_world(edge=EdgeConfig(first_event_wait_s=0.05, keep_alive_s=0.05))
    goes_on = asyncio.Event()
    world.play([goes_on, *FINE])

    async with world.post() as answer:
        assert answer.status == 200
        assert await answer.content.readuntil(b"\n\n") == b": keep-alive\n\n"
        goes_on.set()
        reply = await world.read(answer)

    assert reply.finishes == ["stop"]
    assert await world.charged() == (1, CHARGE)


CROWD = 200
"""Clients that do not read. `tests/bench/unread.py` measures a thousand."""
EACH_BYTES_MAX = 256 * 1024
"""What each may cost, the page tables and everything."""


async def test_071_a_crowd_that_does_not_read(tmp_path: Path) -> None:
    """Each costs no more than its buffers; others are served meanwhile; leaving frees it all."""
    page = sse(piece("x" * 8000))

    async def flood(line: Line) -> None:
        while True:
            line.writer.write(page)
            await line.writer.drain()

    def play(request: Request) -> Script:
        return FINE if request.json().get("max_tokens") == 7 else [BEGIN, flood]

    async with FakeUpstream() as upstream, AsyncExitStack() as stack:
        upstream.play(play)
        async with running_server(tmp_path, CONFIG.format(url=upstream.url, model=MODEL)) as server:
            address = await server.address("http")
            url, key = f"http://{address}{PATH}", server.key

            async def memory() -> float:
                samples = await server.samples()
                return samples["process_resident_memory_bytes", frozenset()]

            async with asking(url, key, max_tokens=7) as good:
                await good.text()
            before = await memory()
            crowd = [await stack.enter_async_context(unread(address, key)) for _ in range(CROWD)]
            await asyncio.gather(*(upstream.request(number) for number in range(1, CROWD + 1)))
            async with asking(url, key, max_tokens=7) as good:
                assert (await good.text()).endswith("data: [DONE]\n\n")
            assert await memory() - before < CROWD * EACH_BYTES_MAX

            for writer in crowd:
                writer.transport.abort()
            async with asyncio.timeout(60):
                for request in upstream.requests[1:-1]:
                    await request.left.wait()
            assert (await server.event("call.ended", end="client_gone"))["charge_nano"] > 0
            server.send_signal(signal.SIGTERM)
            assert await server.ended() == 0
    assert (await holds_are_closed(tmp_path))["settled"] == CROWD + 2
