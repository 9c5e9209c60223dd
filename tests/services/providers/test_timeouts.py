"""Timeouts of calls to providers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.base import UpstreamRequest
from tests.services.providers.word_dialect import Caller, text_of
from tests.stand.clock import FakeClock
from tests.stand.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    STALL,
    Script,
    UpstreamConnection,
    chunk,
    head,
    sse,
)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([STALL], id="no head"),
        pytest.param([SSE_HEAD, STALL], id="no body"),
        pytest.param([SSE_HEAD + chunk(b": hi\n\n"), STALL], id="a comment"),
        pytest.param([SSE_HEAD + sse("ping", "ping"), STALL], id="pings"),
        pytest.param([SSE_HEAD + chunk(b'{"a"'), STALL], id="half a document"),
    ],
)
async def test_an_answer_that_does_not_begin_in_time_is_a_timeout(
    script: Script, caller: Caller
) -> None:
    """Only content begins it: comments and pings do not. The connection is closed."""
    clock = caller.clock = FakeClock()
    caller.channel = {"first_token_timeout_s": 0.05, "progress_timeout_s": 0.05}

    async def delay(_: object) -> None:
        clock.advance(0.06)
        await asyncio.sleep(0.05)  # Half a document is progress: it has some time more.
        clock.advance(0.06)

    texts, error = await caller.failure(*script[:-1], delay, script[-1])

    assert texts == []
    assert error.reason == ErrorReason.UPSTREAM_TIMEOUT
    await caller.upstream.requests[0].left.wait()


@pytest.mark.parametrize(
    "channel",
    [
        pytest.param({"progress_timeout_s": 0.05}, id="progress"),
        pytest.param({"total_timeout_s": 1.0}, id="total"),
    ],
)
async def test_a_stream_without_progress_is_stalled(
    channel: dict[str, object], caller: Caller
) -> None:
    """The events before that are returned first, and the connection is closed."""
    caller.channel = channel

    texts, error = await caller.failure(SSE_HEAD + sse("a"), STALL)

    assert texts == ["a"]
    assert error.reason == ErrorReason.UPSTREAM_STALLED
    await caller.upstream.requests[0].left.wait()


async def test_pings_are_no_progress(caller: Caller) -> None:
    """A stream that has nothing else is stalled."""
    clock = caller.clock = FakeClock()
    caller.channel = {"progress_timeout_s": 0.02}

    async def ping_for_ever(line: UpstreamConnection) -> None:
        while True:
            clock.advance(0.005)
            line.writer.write(sse("ping"))
            await line.writer.drain()
            await asyncio.sleep(0.001)

    texts, error = await caller.failure(SSE_HEAD + sse("a"), ping_for_ever)

    assert texts == ["a"]
    assert error.reason == ErrorReason.UPSTREAM_STALLED


async def test_each_token_moves_the_deadline(caller: Caller) -> None:
    """The timer fires in between, before the deadline that has moved."""
    clock = caller.clock = FakeClock()
    caller.channel = {"progress_timeout_s": 0.01}
    go = [asyncio.Event() for _ in range(5)]
    steps = [step for event in go for step in (event, sse("a"))]
    caller.upstream.play([SSE_HEAD + sse("a"), *steps, sse("stop", "[DONE]") + LAST_CHUNK])
    count = 0

    async with aclosing(caller.answer()) as batches:
        async for _ in batches:
            clock.advance(0.009)
            await asyncio.sleep(0.02)  # The timer fires meanwhile.
            if count < len(go):
                go[count].set()
            count += 1

    assert count >= len(go)


async def test_a_slow_caller_is_not_the_providers_fault(caller: Caller) -> None:
    """While the caller uses a batch, no deadline applies."""
    clock = caller.clock = FakeClock()
    caller.channel = {"progress_timeout_s": 0.01}
    caller.upstream.play([SSE_HEAD + sse("a"), sse("b", "stop", "[DONE]") + LAST_CHUNK])
    texts: list[str] = []

    async with aclosing(caller.answer()) as batches:
        async for batch in batches:
            texts += [text_of(event) for event in batch]
            clock.advance(10)
            await asyncio.sleep(0.03)  # The timer fires meanwhile.

    assert texts[:2] == ["a", "b"]


async def test_an_overdue_answer_is_stalled_once_its_slow_caller_is_back(caller: Caller) -> None:
    """The total timeout passes while the caller uses a batch: nothing is lost, then it applies."""
    clock = caller.clock = FakeClock()
    caller.channel = {"total_timeout_s": 0.02}
    caller.upstream.play([SSE_HEAD + sse("a"), STALL])

    async with aclosing(caller.answer()) as batches:
        (first,) = await anext(batches)
        clock.advance(10)
        await asyncio.sleep(0.05)  # The timer fires meanwhile.
        with pytest.raises(UpstreamError) as failed:
            await anext(batches)

    assert text_of(first) == "a"
    assert failed.value.reason == ErrorReason.UPSTREAM_STALLED


@pytest.mark.parametrize(
    "channel", [{"first_token_timeout_s": 0.05}, {"total_timeout_s": 0.05}], ids=["first", "total"]
)
async def test_a_document_has_to_begin_in_time(channel: dict[str, object], caller: Caller) -> None:
    """A document has the time of a first event; one that cannot be a stream, the total time."""
    clock = caller.clock = FakeClock()
    caller.channel = channel
    may_stream = "first_token_timeout_s" in channel
    caller.request = UpstreamRequest(
        path="/chat", body=b"{}", streamed=False, may_stream=may_stream
    )

    async def delay(_: object) -> None:
        clock.advance(0.06)

    _, error = await caller.failure(head(content_length="7"), delay, STALL)

    assert error.reason == ErrorReason.UPSTREAM_TIMEOUT


async def test_a_document_that_cannot_be_a_stream_has_only_a_total_timeout(caller: Caller) -> None:
    """It may begin later than the timeout of a first event."""
    clock = caller.clock = FakeClock()
    caller.channel = {"first_token_timeout_s": 0.01}
    caller.request = UpstreamRequest(path="/chat", body=b"{}", streamed=False, may_stream=False)

    async def delay(_: object) -> None:
        clock.advance(100)

    assert await caller.batches(head(content_length="7"), delay, b'{"a":1}') == [['{"a":1}', "."]]
