"""Clients that disconnect, stall or repeat a request."""

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
from services.completions.drains import DRAINS_PER_ACCOUNT_MAX
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import (
    BEGIN,
    CHARGE,
    END,
    FINE,
    PATH,
    PROMPT,
    TEXT,
    TIMEOUT_S,
    WHOLE,
    piece,
)
from tests.faults.processes import asking, holds_are_closed, priced_configuration, unread
from tests.stand.servers import running_server
from tests.stand.upstream import (
    STALL,
    FakeUpstream,
    Request,
    Script,
    UpstreamConnection,
    json_answer,
    sse,
)

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
    """Closes the sending direction, and goes on reading."""
    writer.write_eof()


PROMPT_CHARGE = (-(-len(PROMPT) // 4) + 4) * 1_000
"""Cost of the prompt as the gateway counts it: a token for four bytes, four for a message."""
MAX_CHARGE = 50 * 2_000
"""Cost of all tokens that the stand's calls allow for an answer."""

LEAVES = pytest.mark.parametrize("leave", [close, reset, half_close])


@LEAVES
@pytest.mark.parametrize("stream", [True, False])
async def test_disconnecting_before_the_first_token_costs_the_prompt(
    open_stand: OpenStand, leave: Leave, stream: bool
) -> None:
    """Before the first token the provider is cancelled at once; it has the prompt. Row 66."""
    stand = await open_stand()
    stand.play([STALL])

    async with stand.dial(stream=stream) as (_, writer):
        request = await stand.first.request()
        leave(writer)
        await asyncio.wait_for(request.left.wait(), 1)

    assert await stand.charged() == (1, PROMPT_CHARGE)
    assert stand.metric("settlements_total", outcome="voided") == 0
    assert stand.second.requests == []


@LEAVES
async def test_disconnecting_in_the_middle_charges_what_arrived_once(
    open_stand: OpenStand, leave: Leave
) -> None:
    """The tokens received so far are charged once, and the log names the disconnect. Row 66."""
    stand = await open_stand()
    stand.play([BEGIN, STALL])

    async with stand.dial() as (reader, writer):
        await reader.readuntil(b"canary-answer-")
        leave(writer)
        await asyncio.wait_for(stand.first.requests[0].left.wait(), 1)

    calls, charge = await stand.charged()
    assert calls == 1
    assert 0 < charge < CHARGE * 10
    assert len(stand.log.of("call.ended", end="client_gone", code="CANCELLED")) == 1
    assert stand.log.of("request.ended", status=499)


@LEAVES
async def test_disconnecting_before_the_usage_charges_our_own_count(
    open_stand: OpenStand, leave: Leave
) -> None:
    """The answer is complete but its usage has not come: our own token count is charged. Row 66."""
    stand = await open_stand()
    stand.play([BEGIN + sse(piece("", "stop")), STALL])

    async with stand.dial() as (reader, writer):
        await reader.readuntil(b"canary-answer-")
        leave(writer)
        await asyncio.wait_for(stand.first.requests[0].left.wait(), 1)

    assert (await stand.charged())[0] == 1


@LEAVES
async def test_disconnecting_after_done_charges_the_providers_usage(
    open_stand: OpenStand, leave: Leave
) -> None:
    """A client that has received [DONE] is charged the provider's usage. Row 66."""
    stand = await open_stand()
    stand.play(FINE)

    async with stand.dial() as (reader, writer):
        await reader.readuntil(b"[DONE]")
        leave(writer)
        assert await stand.charged() == (1, CHARGE)


@LEAVES
async def test_disconnecting_from_a_whole_answer_cancels_it(
    open_stand: OpenStand, leave: Leave
) -> None:
    """A whole answer is cancelled like a stream, also when part of it has come. Row 67."""
    stand = await open_stand()
    (answer,) = WHOLE
    assert isinstance(answer, bytes)
    sent = asyncio.Event()

    async def tell(_: UpstreamConnection) -> None:
        sent.set()

    stand.play([answer[:-20], tell, STALL])

    async with stand.dial(stream=False) as (_, writer):
        await sent.wait()
        leave(writer)
        await asyncio.wait_for(stand.first.requests[0].left.wait(), 1)

    assert await stand.charged() == (1, PROMPT_CHARGE)


DRAINING = {"on_disconnect": "drain"}


@LEAVES
async def test_a_channel_that_drains_is_read_to_its_end_and_charged_once(
    open_stand: OpenStand, leave: Leave
) -> None:
    """On a channel that drains, the rest is read and the provider's usage is charged once.

    Row 68.
    """
    stand = await open_stand(first=DRAINING)
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])

    async with stand.dial() as (reader, writer):
        await reader.readuntil(b"canary-answer-")
        leave(writer)
        await stand.until(lambda: stand.metric("draining_calls") == 1)
        goes_on.set()
        assert await stand.charged() == (1, CHARGE)

    assert stand.metric("settlements_total", outcome="settled") == 1
    (ended,) = stand.log.of("call.ended")
    assert (ended["end"], ended["charge_nano_usd"]) == ("client_gone", 0)
    (drained,) = stand.log.of("call.drained")
    assert drained["request_id"] == ended["request_id"]
    assert drained["charge_nano_usd"] == CHARGE


@LEAVES
@pytest.mark.parametrize("stream", [True, False])
async def test_a_drain_covers_answers_that_have_not_begun(
    open_stand: OpenStand, leave: Leave, stream: bool
) -> None:
    """Before the first token, and for whole answers, the provider finishes and is paid. Row 68."""
    stand = await open_stand(first=DRAINING)
    goes_on = asyncio.Event()
    stand.play([goes_on, *(FINE if stream else WHOLE)])

    async with stand.dial(stream=stream) as (_, writer):
        await stand.first.request()
        leave(writer)
        await stand.until(lambda: stand.metric("draining_calls") == 1)
        goes_on.set()
        assert await stand.charged() == (1, CHARGE)

    (ended,) = stand.log.of("call.ended")
    assert (ended["end"], ended["charge_nano_usd"]) == ("client_gone", 0)
    (drained,) = stand.log.of("call.drained", charge_nano_usd=CHARGE)
    assert drained["duration_ms"] >= ended["duration_ms"]


async def test_a_drain_reads_a_partial_document_to_its_end(open_stand: OpenStand) -> None:
    """A whole answer of which a part has come is read to its end. Row 68."""
    stand = await open_stand(first=DRAINING)
    goes_on, sent = asyncio.Event(), asyncio.Event()
    (answer,) = WHOLE
    assert isinstance(answer, bytes)

    async def tell(_: UpstreamConnection) -> None:
        sent.set()

    stand.play([answer[:-20], tell, goes_on, answer[-20:]])

    async with stand.dial(stream=False) as (_, writer):
        await sent.wait()
        close(writer)
        await stand.until(lambda: stand.metric("draining_calls") == 1)
        goes_on.set()
        assert await stand.charged() == (1, CHARGE)


async def test_a_drain_without_an_answer_costs_the_hold(open_stand: OpenStand) -> None:
    """A provider silent for `drain_seconds` bills an answer that is not seen. Row 68."""
    stand = await open_stand(first={**DRAINING, "drain_seconds": 0.1})
    stand.play([STALL])

    async with stand.dial():
        await stand.first.request()
    await asyncio.wait_for(stand.first.requests[0].left.wait(), TIMEOUT_S)

    assert await stand.charged() == (1, PROMPT_CHARGE + MAX_CHARGE)
    assert len(stand.log.of("call.drained", charge_nano_usd=PROMPT_CHARGE + MAX_CHARGE)) == 1


async def test_a_drain_has_no_failover(open_stand: OpenStand) -> None:
    """When a provider fails during its drain, no other provider is asked. Row 68."""
    stand = await open_stand(first=DRAINING)
    goes_on = asyncio.Event()
    stand.play([goes_on, json_answer({"error": {"message": "busy"}}, 503)])

    async with stand.dial() as (_, writer):
        await stand.first.request()
        close(writer)
        await stand.until(lambda: stand.metric("draining_calls") == 1)
        goes_on.set()
        assert await stand.charged() == (0, 0)

    assert stand.second.requests == []


async def test_whether_to_drain_is_the_serving_channels_setting(open_stand: OpenStand) -> None:
    """The serving channel's setting counts: a fallback channel that cancels is left at once.

    Row 68.
    """
    stand = await open_stand(first=DRAINING)
    stand.play([json_answer({"error": {"message": "busy"}}, 503)], second=[STALL])

    async with stand.dial() as (_, writer):
        request = await stand.second.request()
        close(writer)
        await asyncio.wait_for(request.left.wait(), 1)

    assert await stand.charged() == (1, PROMPT_CHARGE)
    assert stand.log.of("call.drained") == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_drained_answer_is_replayed_for_its_idempotency_key(
    open_stand: OpenStand, stream: bool
) -> None:
    """A named call is in progress during its drain; then its answer is replayed, paid once.

    Row 68.
    """
    stand = await open_stand(first=DRAINING)
    goes_on = asyncio.Event()
    stand.play([goes_on, *(FINE if stream else WHOLE)])
    name = {"Idempotency-Key": "order-66"}

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await stand.ask(headers=name, stream=stream)
    await stand.until(lambda: stand.metric("draining_calls") == 1)
    assert (await stand.ask(headers=name, stream=stream)).code == "idempotency_in_progress"
    goes_on.set()
    await stand.wait_until_idle()
    again = await stand.ask(headers=name, stream=stream)

    assert (again.status, again.content) == (200, TEXT)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(stand.first.requests) == 1
    assert await stand.charged() == (1, CHARGE)


async def test_a_drain_ends_after_its_timeout(open_stand: OpenStand) -> None:
    """A provider that stops is cancelled after `drain_seconds`; our own count is charged.

    Row 68.
    """
    stand = await open_stand(first={**DRAINING, "drain_seconds": 0.1})
    stand.play([BEGIN, STALL])

    async with stand.dial() as (reader, writer):
        await reader.readuntil(b"canary-answer-")
        close(writer)
        await asyncio.wait_for(stand.first.requests[0].left.wait(), TIMEOUT_S)

    calls, charge = await stand.charged()
    assert calls == 1
    assert charge > 0
    assert len(stand.log.of("call.drained")) == 1


async def test_the_number_of_drains_is_bounded(open_stand: OpenStand) -> None:
    """When clients of an account disconnect at once, so many calls drain; others cost their hold.

    Row 68.
    """
    stand = await open_stand(first=DRAINING)
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    more = 6

    async def leave_early() -> None:
        async with stand.dial() as (reader, _):
            await reader.readuntil(b"canary-answer-")

    await asyncio.gather(*(leave_early() for _ in range(DRAINS_PER_ACCOUNT_MAX + more)))
    await stand.until(lambda: stand.metric("draining_calls") == DRAINS_PER_ACCOUNT_MAX)
    await stand.until(lambda: stand.metric("holds_open") == DRAINS_PER_ACCOUNT_MAX)
    goes_on.set()

    drained = DRAINS_PER_ACCOUNT_MAX * CHARGE
    cut = more * (PROMPT_CHARGE + MAX_CHARGE)
    assert await stand.charged() == (DRAINS_PER_ACCOUNT_MAX + more, drained + cut)
    assert len(stand.log.of("call.drained", charge_nano_usd=CHARGE)) == DRAINS_PER_ACCOUNT_MAX


async def test_a_client_that_never_reads_is_cut_off(open_stand: OpenStand) -> None:
    """Backpressure stops the provider, and the connection is closed after a timeout.

    Rows 65e, 70.
    """
    edge = EdgeConfig(write_timeout_s=0.3)
    stand = await open_stand(edge=edge)
    page = sse(piece("x" * 8000))
    sent = 0

    async def flood(line: UpstreamConnection) -> None:
        nonlocal sent
        while True:
            line.writer.write(page)
            await line.writer.drain()
            sent += len(page)

    script: Script = [BEGIN, flood]
    stand.play(script)

    async with stand.dial() as (_, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        request = await stand.first.request()
        await asyncio.wait_for(request.left.wait(), TIMEOUT_S)

    assert sent < 16 * 2**20
    calls, charge = await stand.charged()
    assert calls == 1
    assert charge > 0


async def test_a_client_that_reads_slowly_gets_everything(open_stand: OpenStand) -> None:
    """A client that reads slowly, or pauses for less than the timeout, gets the whole answer.

    Row 70.
    """
    stand = await open_stand(edge=EdgeConfig(write_timeout_s=1.0))
    stand.play([BEGIN, sse(*[piece("x" * 8000)] * 400), END])

    async with stand.dial() as (reader, writer):
        link = writer.get_extra_info("socket")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        got = await reader.readuntil(b"canary-answer-")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)  # The pause that is forgiven.
        assert stand.metric("calls_in_flight") == 1
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        while b"[DONE]" not in got and (data := await reader.read(65_536)):
            got = got[-20:] + data

    assert b"[DONE]" in got
    assert await stand.charged() == (1, CHARGE)
    assert len(stand.log.of("call.ended", end="stop")) == 1


async def test_a_retry_without_an_idempotency_key_is_another_call(open_stand: OpenStand) -> None:
    """An SDK's retry is a call of its own unless it has an idempotency key. Row 72."""
    stand = await open_stand()
    stand.play(FINE)

    for count in "012":
        reply = await stand.ask(headers={"x-stainless-retry-count": count})
        assert reply.status == 200

    assert await stand.charged() == (3, 3 * CHARGE)


async def test_keep_alive_comments_are_sent_while_a_provider_thinks(open_stand: OpenStand) -> None:
    """While a provider thinks, the client of a stream gets keep-alive comments. Row 73."""
    stand = await open_stand(edge=EdgeConfig(first_event_wait_s=0.05, keep_alive_s=0.05))
    goes_on = asyncio.Event()
    stand.play([goes_on, *FINE])

    async with stand.post() as answer:
        assert answer.status == 200
        assert await answer.content.readuntil(b"\n\n") == b": keep-alive\n\n"
        goes_on.set()
        reply = await stand.read(answer)

    assert reply.finishes == ["stop"]
    assert await stand.charged() == (1, CHARGE)


CROWD = 200
"""Clients that do not read. `tests/bench/unread.py` measures a thousand."""
EACH_BYTES_MAX = 256 * 1024
"""Most memory of each client, page tables included."""


async def test_many_clients_that_never_read_cost_only_their_buffers(tmp_path: Path) -> None:
    """Each costs no more than its buffers, others are served, and disconnecting frees it all.

    Row 71.
    """
    page = sse(piece("x" * 8000))

    async def flood(line: UpstreamConnection) -> None:
        while True:
            line.writer.write(page)
            await line.writer.drain()

    def play(request: Request) -> Script:
        return FINE if request.json().get("max_tokens") == 7 else [BEGIN, flood]

    async with FakeUpstream() as upstream, AsyncExitStack() as stack:
        upstream.play(play)
        async with running_server(tmp_path, priced_configuration(upstream.url)) as server:
            address = await server.address("http")
            url, key = f"http://{address}{PATH}", server.key

            async def memory() -> float:
                samples = await server.samples()
                return samples["process_resident_memory_bytes", frozenset()]

            async with asking(url, key, max_tokens=7) as good:
                await good.text()
            before = await memory()
            clients = [await stack.enter_async_context(unread(address, key)) for _ in range(CROWD)]
            await asyncio.gather(*(upstream.request(number) for number in range(1, CROWD + 1)))
            async with asking(url, key, max_tokens=7) as good:
                assert (await good.text()).endswith("data: [DONE]\n\n")
            assert await memory() - before < CROWD * EACH_BYTES_MAX

            for writer in clients:
                writer.transport.abort()
            async with asyncio.timeout(60):
                for request in upstream.requests[1:-1]:
                    await request.left.wait()
            assert (await server.event("call.ended", end="client_gone"))["charge_nano_usd"] > 0
            server.send_signal(signal.SIGTERM)
            assert await server.ended() == 0
    assert (await holds_are_closed(tmp_path))["settled"] == CROWD + 2
