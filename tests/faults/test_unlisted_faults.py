"""Faults that the catalogue does not list."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from services.config import BoundsConfig, ConfigError
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import (
    BEGIN,
    CHARGE,
    END,
    FINE,
    TEXT,
    USAGE,
    WHOLE,
    FaultStand,
    piece,
    reload_with,
)
from tests.stand.upstream import (
    CUT,
    LAST_CHUNK,
    SSE_HEAD,
    STALL,
    Script,
    UpstreamConnection,
    chunk,
    head,
    sse,
)

STREAMS = pytest.mark.parametrize("streamed", [True, False])
INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n",
)


def calls_tool(call: Any) -> Any:
    """A chunk with a piece of a call to a tool."""
    return {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}


@STREAMS
@pytest.mark.parametrize("interim", INTERIM)
async def test_interim_responses(stand: FaultStand, interim: bytes, streamed: bool) -> None:
    """Interim responses, one or many, are not the response."""
    (answer,) = FINE if streamed else WHOLE
    assert isinstance(answer, bytes)
    stand.play([interim * 3 + answer])

    assert (await stand.ask(stream=streamed)).content == TEXT
    assert await stand.charged() == (1, CHARGE)


async def test_interim_responses_for_ever(stand: FaultStand) -> None:
    """Interim responses without end are no answer."""

    async def hint(line: UpstreamConnection) -> None:
        while not line.reader.at_eof():
            line.writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await line.writer.drain()
            await asyncio.sleep(0.02)

    stand.play([hint], second=FINE)

    assert (await stand.ask()).content == TEXT
    assert await stand.charged() == (1, CHARGE)


async def test_a_head_that_never_ends(stand: FaultStand) -> None:
    """A head that never ends is no answer."""

    async def drip(line: UpstreamConnection) -> None:
        line.writer.write(b"HTTP/1.1 200 OK\r\n")
        while not line.reader.at_eof():
            line.writer.write(b"x: y\r\n")
            await line.writer.drain()
            await asyncio.sleep(0.02)

    stand.play([drip], second=FINE)

    assert (await stand.ask()).content == TEXT
    assert await stand.charged() == (1, CHARGE)


async def test_a_protocol_that_was_not_asked_for(stand: FaultStand) -> None:
    """A switch of protocols (101) is a failure of the provider."""
    switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"
    stand.play([switch, STALL], second=FINE)

    assert (await stand.ask()).content == TEXT


async def test_huge_arguments_of_a_tool(stand: FaultStand) -> None:
    """A megabyte of arguments, in thousands of pieces, arrives as it was sent."""
    arguments = json.dumps({"text": "x" * 1_000_000})
    pieces = [arguments[at : at + 512] for at in range(0, len(arguments), 512)]
    function = {"name": "f", "arguments": ""}
    calls: list[Any] = [{"index": 0, "id": "call_1", "type": "function", "function": function}]
    calls += [{"index": 0, "function": {"arguments": part}} for part in pieces]
    last = {"id": "c", "choices": [], "usage": USAGE}
    script: Script = [
        SSE_HEAD
        + sse(*map(calls_tool, calls), piece("", "tool_calls"), last, "[DONE]")
        + LAST_CHUNK
    ]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

    stand.play(script, script)
    streamed = await stand.ask(tools=[tool])
    whole = await stand.ask(tools=[tool], stream=False)

    came = [
        call["function"].get("arguments", "")
        for event in streamed.events[:-1]
        for choice in event["choices"]
        for call in choice["delta"].get("tool_calls", [])
    ]
    assert "".join(came) == arguments
    (call,) = whole.json["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == arguments
    assert (await stand.charged())[0] == 2


async def test_trailing_garbage(stand: FaultStand) -> None:
    """Bytes after a complete response belong to no answer."""
    (answer,) = WHOLE
    assert isinstance(answer, bytes)
    stand.play([answer + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad"], FINE)

    assert (await stand.ask(stream=False)).content == TEXT
    assert (await stand.ask()).content == TEXT
    assert await stand.charged() == (2, 2 * CHARGE)


async def test_the_wrong_length_of_a_chunk(stand: FaultStand) -> None:
    """A chunk with a wrong length ends the stream with an error."""
    stand.play([BEGIN, b"zz\r\nwhat\r\n", STALL])

    reply = await stand.ask()

    assert (reply.status, reply.code) == (200, "upstream_bad_response")
    assert (await stand.charged())[0] == 1


async def test_answers_to_nobody(stand: FaultStand) -> None:
    """Bytes that a provider sends before a request are not its answer."""
    (answer,) = FINE
    assert isinstance(answer, bytes)
    stand.play([answer + answer], FINE)

    assert (await stand.ask()).content == TEXT
    assert (await stand.ask()).content == TEXT
    assert len(stand.first.requests) == 2
    assert await stand.charged() == (2, 2 * CHARGE)


async def test_slow_loris(open_stand: OpenStand) -> None:
    """Clients that send a byte now and then take no slot from others."""
    stand = await open_stand(bounds=BoundsConfig(calls_max=2))
    stand.play(FINE)
    opened = [await asyncio.open_connection(*stand.address) for _ in range(200)]
    for _, writer in opened:
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le")

    assert (await stand.ask()).content == TEXT

    for _, writer in opened:
        writer.transport.abort()
    assert await stand.charged() == (1, CHARGE)


async def test_finishes_twice(stand: FaultStand) -> None:
    """An answer that finishes twice reaches the caller with one finish."""
    stand.play([BEGIN + sse(piece("31d0"), piece("", "stop"), piece("", "length")) + END, CUT])

    reply = await stand.ask()

    assert len(reply.finishes) <= 1
    assert (await stand.charged())[0] == 1


async def test_only_a_finish(stand: FaultStand) -> None:
    """An answer without text is an answer."""
    usage = {
        "id": "c",
        "choices": [],
        "usage": {**USAGE, "completion_tokens": 0, "total_tokens": 10},
    }
    stand.play([SSE_HEAD + sse(piece("", "stop"), usage, "[DONE]") + LAST_CHUNK])

    reply = await stand.ask()

    assert (reply.content, reply.finishes) == ("", ["stop"])
    assert await stand.charged() == (1, 10 * 1_000)


async def test_a_status_without_a_body(stand: FaultStand) -> None:
    """204, and a length that lies, are failures like others."""
    stand.play([head(204)], [head(200, content_length="5") + b"{}", STALL], second=FINE)

    for _ in range(2):
        assert (await stand.ask()).content == TEXT
    assert await stand.charged() == (2, 2 * CHARGE)


async def test_bytes_one_by_one(stand: FaultStand) -> None:
    """However finely a stream is cut, across heads and chunks, the answer is the same."""
    (answer,) = FINE
    assert isinstance(answer, bytes)

    async def drip(line: UpstreamConnection) -> None:
        for byte in answer:
            line.writer.write(bytes([byte]))
            await line.writer.drain()
            await asyncio.sleep(0)

    stand.play([drip])

    assert (await stand.ask()).content == TEXT
    assert await stand.charged() == (1, CHARGE)


async def test_chunks_of_nothing(stand: FaultStand) -> None:
    """Blank lines without end are no events, and no progress."""

    async def blank(line: UpstreamConnection) -> None:
        while not line.reader.at_eof():
            line.writer.write(chunk(b"\n\n\n"))
            await line.writer.drain()
            await asyncio.sleep(0.02)

    stand.play([BEGIN, blank])

    assert (await stand.ask()).code == "upstream_stalled"
    assert (await stand.charged())[0] == 1


async def test_a_reload_that_fails_while_streams_run(open_stand: OpenStand) -> None:
    """Running and new streams are unaffected."""
    stand = await open_stand()
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END], FINE)
    first, *others = stand.config.channels
    wrong = msgspec.structs.replace(first, base_url="", local="no-such-model")

    async with stand.post() as answer:
        await answer.content.readuntil(b"canary-answer-")
        with pytest.raises(ConfigError):
            reload_with(stand, msgspec.structs.replace(stand.config, channels=(wrong, *others)))
        assert (await stand.ask()).content == TEXT
        goes_on.set()
        reply = await stand.read(answer)

    assert reply.events[-1] == "[DONE]"
    assert stand.metric("config_reloads_total", result="refused") == 1
    assert await stand.charged() == (2, 2 * CHARGE)
