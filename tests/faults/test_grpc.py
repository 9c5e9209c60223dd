"""Frames, metadata, deadlines and statuses that gRPC does not expect, or cuts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import psutil
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2 as content
from pomogator.models.v1 import model_service_pb2 as models

from gateway.rpc.service_channel import open_channel
from services.config import BoundsConfig
from services.rpc.listener import OPTIONS, listening
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import BEGIN, END, MODEL, PROMPT, FaultStand, fitting
from tests.stand.upstream import STALL, json_answer

MODELS = "/pomogator.models.v1.ModelService/ListModels"
STREAM = "/pomogator.chat.v1.ChatCompletionService/StreamChatCompletion"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, END_HEADERS = 1, 4
ROOM = 64 * 2**20


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2 (RFC 9113, section 4.1)."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def literal(name: str, value: str) -> bytes:
    """A header field without indexing (RFC 7541, section 6.2.2)."""
    assert max(len(name), len(value)) < 127
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def head(path: str, **more: str) -> bytes:
    """The headers of a call."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "x",
        "content-type": "application/grpc",
        "te": "trailers",
        **more,
    }
    return b"".join(literal(name, value) for name, value in fields.items())


def message(data: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    """A message as gRPC frames it, whether or not the length is true."""
    said = len(data) if length is None else length
    return bytes([compressed]) + said.to_bytes(4, "big") + data


@asynccontextmanager
async def talking(stand: FaultStand) -> AsyncIterator[tuple[str, grpc.aio.Channel]]:
    """A gRPC listener of the gateway's service, and a caller of it."""
    async with (
        listening(stand.service.register, "127.0.0.1:0", grace_s=0) as bound,
        open_channel(bound) as channel,
    ):
        yield bound, channel


async def models_are_listed(stand: FaultStand, channel: grpc.aio.Channel) -> None:
    """The listener answers a good call."""
    rpc: Any = channel.unary_unary(
        MODELS, response_deserializer=models.ListModelsResponse.FromString
    )
    answer = await rpc(b"", metadata=(("authorization", f"Bearer {stand.key}"),))
    assert MODEL in {model.name for model in answer.models}


async def send(address: str, *frames: bytes) -> bytes:
    """Sends bytes over HTTP/2; returns what arrives until silence or the end of the connection."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    said = b""
    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0) + b"".join(frames))
        async with asyncio.timeout(0.3):
            while data := await reader.read(65_536):
                said += data
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
    return said


async def outcome(call: Any) -> grpc.StatusCode:
    """The status with which a stream ends."""
    with suppress(grpc.aio.AioRpcError):
        async for _ in call:
            pass
    code: grpc.StatusCode = await call.code()
    return code


@pytest.mark.parametrize("given", ["1n", "0S", "soon", "-1S", "99999999999S", ""])
async def test_an_invalid_deadline_ends_only_its_call(open_stand: OpenStand, given: str) -> None:
    """A deadline that is past, or malformed, ends its call; others of the connection go on.

    Row 111.
    """
    stand = await open_stand()
    async with talking(stand) as (bound, channel):
        odd = head(STREAM, authorization=f"Bearer {stand.key}", **{"grpc-timeout": given})
        await send(
            bound, frame(HEADERS, END_HEADERS, 1, odd), frame(DATA, END_STREAM, 1, message(b""))
        )
        await models_are_listed(stand, channel)

    assert stand.first.requests == []
    assert await stand.charged() == (0, 0)


@pytest.mark.parametrize("begins", [False, True])
async def test_a_deadline_ends_the_call_and_cancels_the_provider(
    open_stand: OpenStand, *, begins: bool
) -> None:
    """A caller's deadline ends the call before and within the answer; the provider is cancelled.

    The call is charged in either case, since its request was sent. Row 111.
    """
    stand = await open_stand()
    stand.play([BEGIN, STALL] if begins else [STALL], second=[STALL])
    request = chat.StreamChatCompletionRequest()
    request.spec.model = MODEL
    request.spec.messages.add(role=content.ROLE_USER).content.add(text=PROMPT)
    async with talking(stand) as (_, channel):
        rpc: Any = channel.unary_stream(
            STREAM, request_serializer=chat.StreamChatCompletionRequest.SerializeToString
        )
        call = rpc(request, metadata=(("authorization", f"Bearer {stand.key}"),), timeout=0.5)
        assert await outcome(call) is grpc.StatusCode.DEADLINE_EXCEEDED
        await stand.wait_until_disconnected(stand.first)

    assert (await stand.charged())[0] == 1
    assert len(stand.second.requests) == (0 if begins else 1)
    # To a busy service, a caller whose own deadline passes first has left.
    ends = [stand.metric("stream_ends_total", end=end) for end in ("deadline", "client_gone")]
    assert sum(ends) == 1


@pytest.mark.parametrize("size", [7_000, 12_000, 20_000, 200_000])
async def test_too_much_metadata_is_a_grpc_status(open_stand: OpenStand, size: int) -> None:
    """Too much of it gets gRPC's own status, logs no error, and harms no later call. Row 114."""
    stand = await open_stand()
    async with talking(stand) as (_, channel):
        rpc: Any = channel.unary_unary(MODELS)
        key = ("authorization", f"Bearer {stand.key}")
        call = rpc(b"", metadata=(key, ("x-much", "x" * size), ("odd-bin", b"\xff\x00")))
        code = await call.code()
        assert code in {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert size > 8_000 or code is grpc.StatusCode.OK
        await models_are_listed(stand, channel)
    assert await stand.charged() == (0, 0)


async def test_metadata_that_is_not_base64_ends_at_most_its_call(open_stand: OpenStand) -> None:
    """Invalid base64 ends at most the call; the edge never sends it. Row 114."""
    stand = await open_stand(wire=True)
    stand.play(fitting)
    async with talking(stand) as (bound, channel):
        for value in ("!!!!", "a", "=", "\x7f"):
            odd = head(MODELS, **{"trace-bin": value})
            await send(
                bound, frame(HEADERS, END_HEADERS, 1, odd), frame(DATA, END_STREAM, 1, message(b""))
            )
        await models_are_listed(stand, channel)
    odd_headers = {
        "traceparent": "00-xyz",
        "tracestate": "é",
        "grpc-trace-bin": "!!",
        "X-UP-Bin": "?",
    }
    assert (await stand.ask(headers=odd_headers)).status == 200
    assert (await stand.charged())[0] == 1


BROKEN: dict[str, Sequence[bytes]] = {
    "an unknown method": [
        frame(HEADERS, END_HEADERS, 1, head("/no.Such/Method")),
        frame(DATA, END_STREAM, 1, message(b"")),
    ],
    "another content type": [
        frame(HEADERS, END_HEADERS | END_STREAM, 1, head(MODELS, **{"content-type": "text/html"}))
    ],
    "a message of four gibibytes": [
        frame(HEADERS, END_HEADERS, 1, head(MODELS)),
        frame(DATA, 0, 1, message(b"x", length=2**32 - 1)),
    ],
    "a message cut short": [
        frame(HEADERS, END_HEADERS, 1, head(MODELS)),
        frame(DATA, END_STREAM, 1, message(b"x", length=100)),
    ],
    "two messages": [
        frame(HEADERS, END_HEADERS, 1, head(MODELS)),
        frame(DATA, END_STREAM, 1, message(b"") * 2),
    ],
    "what was never compressed": [
        frame(HEADERS, END_HEADERS, 1, head(MODELS, **{"grpc-encoding": "gzip"})),
        frame(DATA, END_STREAM, 1, message(b"nonsense", compressed=True)),
    ],
    "what is no message": [
        frame(HEADERS, END_HEADERS, 1, head(STREAM)),
        frame(DATA, END_STREAM, 1, message(b"\xff" * 99)),
    ],
    "a frame of no kind": [frame(250, 255, 7, b"?"), frame(DATA, 0, 99, b"?")],
    "headers without end": [frame(HEADERS, 0, 1, head(MODELS))] * 3,
}


async def test_bytes_that_are_no_message_are_the_callers_error(open_stand: OpenStand) -> None:
    """The error names no type of the contract, and logs no error. Row 115."""
    stand = await open_stand()
    async with talking(stand) as (_, channel):
        for method in (MODELS, STREAM):
            rpc: Any = channel.unary_stream(method)
            call = rpc(b"\xff" * 99, metadata=(("authorization", f"Bearer {stand.key}"),))
            assert await outcome(call) is grpc.StatusCode.INVALID_ARGUMENT
            assert await call.details() == "The request cannot be decoded."


@pytest.mark.parametrize("how", BROKEN)
async def test_broken_frames_end_their_connection_at_most(open_stand: OpenStand, how: str) -> None:
    """The call or connection ends; memory does not grow, and others are answered. Row 115."""
    stand = await open_stand()
    async with talking(stand) as (bound, channel):
        await models_are_listed(stand, channel)
        before = psutil.Process().memory_info().rss
        said = await send(bound, *BROKEN[how])
        assert PROMPT.encode() not in said
        await models_are_listed(stand, channel)
        assert psutil.Process().memory_info().rss - before < ROOM

    assert stand.first.requests == []
    assert await stand.charged() == (0, 0)


async def test_rapid_resets_leave_nothing_behind(open_stand: OpenStand) -> None:
    """Thousands of calls cancelled at once leave nothing, and slow no other caller. Row 116."""
    stand = await open_stand()
    stand.play([BEGIN, STALL])
    spec = chat.ChatCompletionSpec(model=MODEL)
    spec.messages.add(role=content.ROLE_USER).content.add(text=PROMPT)
    body = message(chat.StreamChatCompletionRequest(spec=spec).SerializeToString())
    asked = head(STREAM, authorization=f"Bearer {stand.key}")
    async with talking(stand) as (bound, channel):
        flood = b"".join(
            frame(HEADERS, END_HEADERS, number, asked)
            + frame(DATA, END_STREAM, number, body)
            + frame(RST_STREAM, 0, number, (8).to_bytes(4, "big"))
            for number in range(1, 10_000, 2)
        )
        await send(bound, flood)
        await models_are_listed(stand, channel)
        await stand.wait_until_idle()

    assert (await stand.charged())[1] == 0
    assert len(stand.first.requests) < 5_000
    assert stand.metric("stream_ends_total", end="internal") == 0


async def test_streams_over_the_limit_are_refused_with_retry_after(open_stand: OpenStand) -> None:
    """Hundreds of calls on one connection: the limit runs, and the others are refused as overload.

    Row 116.
    """
    room, more = 20, 300
    assert dict(OPTIONS)["grpc.max_concurrent_streams"] == 2000
    stand = await open_stand(bounds=BoundsConfig(calls_max=room))
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    request = chat.StreamChatCompletionRequest()
    request.spec.model = MODEL
    request.spec.messages.add(role=content.ROLE_USER).content.add(text=PROMPT)
    async with talking(stand) as (_, channel):
        rpc: Any = channel.unary_stream(
            STREAM, request_serializer=chat.StreamChatCompletionRequest.SerializeToString
        )
        key = (("authorization", f"Bearer {stand.key}"),)
        calls = [rpc(request, metadata=key) for _ in range(room + more)]
        codes = [asyncio.create_task(outcome(call)) for call in calls]
        await stand.until(lambda: sum(code.done() for code in codes) == more)
        goes_on.set()
        done = await asyncio.gather(*codes)

    assert done.count(grpc.StatusCode.OK) == room
    assert done.count(grpc.StatusCode.UNAVAILABLE) == more
    assert len(stand.first.requests) == room
    assert (await stand.charged())[0] == room
    assert stand.metric("requests_refused_total", reason="OVERLOADED") == more


@pytest.mark.parametrize("stream", [True, False])
async def test_a_long_error_message_arrives_cut_with_its_status(
    open_stand: OpenStand, *, stream: bool
) -> None:
    """A provider's long message, in any script, arrives cut and with its status. Row 119."""
    stand = await open_stand(wire=True)
    error = {"message": "é🙂" * 20_000}
    stand.play([json_answer({"error": error}, 400)])

    reply = await stand.ask(stream=stream)

    assert (reply.status, reply.code) == (400, "upstream_invalid_request")
    assert len(reply.text) < 4_000
    assert stand.second.requests == []
    assert await stand.charged() == (0, 0)
