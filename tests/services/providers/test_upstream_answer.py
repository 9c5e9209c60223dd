"""Answers of providers, over real sockets: streams, documents, and those that break off."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping
from contextlib import aclosing

import pytest

from services.domain.error_reason import ErrorReason
from services.domain.events import Batch, TextDelta
from services.errors import UpstreamError
from services.providers.answer_bodies import ERROR_BODY_MAX
from services.providers.base import UpstreamRequest
from tests.services.providers.word_dialect import FINISHED, Caller
from tests.stand.upstream import (
    CUT,
    HALF_CLOSE,
    LAST_CHUNK,
    RESET,
    SSE_HEAD,
    SSE_HEAD_UNTIL_CLOSE,
    STALL,
    Script,
    answer,
    chunk,
    event,
    head,
    json_answer,
    sse,
    stream,
)


async def test_events_that_arrive_together_are_one_batch(caller: Caller) -> None:
    """No event waits for later ones."""
    seen = asyncio.Event()
    caller.upstream.play([SSE_HEAD + sse("a", "b"), seen, sse("c", "stop", "[DONE]") + LAST_CHUNK])
    batches: list[Batch] = []

    async with aclosing(caller.answer()) as answer:
        async for batch in answer:
            batches.append(batch)
            seen.set()

    assert batches == [[TextDelta("a"), TextDelta("b")], [TextDelta("c"), FINISHED]]


COMPLETE: Mapping[str, Script] = {
    "events": [stream(["a", "stop"])],
    "no [DONE]": [stream(["a", "stop"], done=False)],
    "no [DONE], until close": [SSE_HEAD_UNTIL_CLOSE, event("a"), event("stop"), CUT],
    "the last blank line missing": [
        SSE_HEAD_UNTIL_CLOSE + event("a") + event("stop") + event("[DONE]")[:-1],
        CUT,
    ],
    "blank lines and a mark first": [
        SSE_HEAD + chunk(b"\xef\xbb\xbf\n\n"),
        chunk(b": hello\n\n") + sse("a", "stop", "[DONE]") + LAST_CHUNK,
    ],
    "a mark in pieces": [
        SSE_HEAD + chunk(b"\xef"),
        chunk(b"\xbb"),
        chunk(b"\xbf") + sse("a", "stop", "[DONE]") + LAST_CHUNK,
    ],
    "a mark before an event": [
        SSE_HEAD + chunk(b"\xef\xbb\xbf" + event("a")) + sse("stop", "[DONE]") + LAST_CHUNK,
    ],
    "another content type": [answer(event("a") + event("stop"), content_type="application/json")],
    "compressed": [answer(gzip.compress(event("a") + event("stop")), content_encoding="gzip")],
}


@pytest.mark.parametrize("name", COMPLETE)
async def test_streams_of_any_form_are_read(name: str, caller: Caller) -> None:
    """Framing, content type, compression and blank lines make no difference."""
    batches = await caller.batches(*COMPLETE[name])

    assert [text for batch in batches for text in batch] == ["a", "."]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    "script",
    [
        pytest.param([json_answer({"x": 1})], id="length"),
        pytest.param([SSE_HEAD + chunk(b'\n\n  {"x"'), chunk(b": 1}") + LAST_CHUNK], id="chunks"),
        pytest.param([SSE_HEAD_UNTIL_CLOSE + b'{"x": 1}', CUT], id="until close"),
    ],
)
async def test_documents_are_read_whatever_was_requested(
    streamed: bool, script: Script, caller: Caller
) -> None:
    """A body that begins with a brace is a document, also in place of a stream."""
    caller.request = UpstreamRequest(path="/chat", body=b"{}", streamed=streamed)

    assert await caller.batches(*script) == [['{"x": 1}', "."]]


@pytest.mark.parametrize(
    ("script", "before"),
    [
        pytest.param([SSE_HEAD, CUT], [], id="before anything"),
        pytest.param([SSE_HEAD + sse("a"), CUT], ["a"], id="between events"),
        pytest.param([SSE_HEAD + sse("a", "stop"), CUT], ["a"], id="after the finish reason"),
        pytest.param([stream(["a"], done=False)], ["a"], id="a clean end without finish reason"),
        pytest.param([SSE_HEAD_UNTIL_CLOSE + event("a"), CUT], ["a"], id="until close"),
        pytest.param([answer(event("a") + event("stop"))[:-9], CUT], ["a"], id="length short"),
        pytest.param([answer(b'{"a":1}')[:-1], CUT], [], id="half a document"),
        pytest.param([SSE_HEAD + chunk(b'{"a"'), HALF_CLOSE], [], id="half a chunked document"),
        pytest.param([CUT], [], id="no answer"),
    ],
)
async def test_an_answer_that_breaks_off_is_an_error(
    script: Script, before: list[str], caller: Caller
) -> None:
    """The events before the break are returned first, and another channel may be tried."""
    texts, error = await caller.failure(*script)

    assert texts == before
    assert error.reason == ErrorReason.UPSTREAM_DISCONNECTED
    assert error.row.retryable


async def test_a_reset_connection_breaks_off_the_answer(caller: Caller) -> None:
    """The error is that of a closed connection."""
    seen = asyncio.Event()
    caller.upstream.play([SSE_HEAD + sse("a"), seen, RESET])
    batches = caller.answer()
    assert await anext(batches) == [TextDelta("a")]
    seen.set()

    with pytest.raises(UpstreamError) as failed:
        await anext(batches)

    assert failed.value.reason == ErrorReason.UPSTREAM_DISCONNECTED


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([answer(b"")], id="nothing"),
        pytest.param([answer(b" \r\n\r\n")], id="blank lines"),
        pytest.param([answer(b"\n<html>")], id="a page"),
        pytest.param([answer(b"upstream connect error", content_type="text/plain")], id="text"),
        pytest.param([answer(b": keep-alive\n\n")], id="only comments"),
        pytest.param([b"220 mail.test ESMTP\r\n", CUT], id="not HTTP"),
        pytest.param([answer(b"?", content_encoding="br")], id="an unknown compression"),
        pytest.param([answer(b"?", content_encoding="gzip")], id="a broken compression"),
        pytest.param(
            [answer(gzip.compress(b"\n" * 50_000_000), content_encoding="gzip")], id="a bomb"
        ),
        pytest.param([SSE_HEAD + chunk(b"x") + b"zz\r\n", STALL], id="bad chunks"),
    ],
)
async def test_a_body_that_is_neither_stream_nor_document_is_a_bad_response(
    script: Script, caller: Caller
) -> None:
    """Its status of 200 does not matter."""
    texts, error = await caller.failure(*script)

    assert texts == []
    assert error.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


async def test_events_of_a_megabyte_pass(caller: Caller) -> None:
    """Providers send an image in one event."""
    word = "x" * 1_900_000

    batches = await caller.batches(stream([word, "stop"]))

    assert [text for batch in batches for text in batch] == [word, "."]


async def test_events_before_an_error_are_returned(caller: Caller) -> None:
    """They arrive in the same read as the event of the error, and the connection is closed."""
    texts, error = await caller.failure(SSE_HEAD + sse("a", "b", "error", "c"), STALL)

    assert texts == ["a", "b"]
    assert error.message == "It said so."
    await caller.upstream.requests[0].left.wait()


@pytest.mark.parametrize("rest", [[STALL], [chunk(b"more") + LAST_CHUNK], [RESET]])
async def test_bytes_after_the_end_of_the_answer_are_ignored(rest: Script, caller: Caller) -> None:
    """So are a reset and a missing end of the HTTP message."""
    script = [SSE_HEAD + sse("a", "stop", "[DONE]", "b"), *rest]

    assert await caller.batches(*script) == [["a", "."]]
    if rest == [STALL]:
        await caller.upstream.requests[0].left.wait()


@pytest.mark.parametrize("status", [201, 204, 302, 400, 401, 429, 500, 529])
async def test_the_dialect_maps_other_statuses_to_errors(status: int, caller: Caller) -> None:
    """It gets status, headers and body. A redirect is not followed."""
    body = b"" if status == 204 else b"because"
    wire = head(204, x_why="y") if status == 204 else answer(body, status, x_why="y")

    _, error = await caller.failure(wire)

    assert error.status == status
    assert error.message == f"y {len(body)} {body.decode()}"
    assert len(caller.upstream.requests) == 1


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([answer(b"x" * 1_000_000, 500)], f" {ERROR_BODY_MAX} {'x' * 20}"),
        ([answer(b"because", 500)[:-3], CUT], " 4 beca"),
        ([answer(b"?", 500, content_encoding="br")], " 0 "),
    ],
)
async def test_an_error_response_keeps_its_status(
    script: Script, message: str, caller: Caller
) -> None:
    """Its body may be large, cut or unreadable."""
    _, error = await caller.failure(*script)

    assert error.status == 500
    assert error.message == message


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_a_caller_that_leaves_closes_the_connection(how: str, caller: Caller) -> None:
    """The provider sees the end at once."""
    caller.upstream.play([SSE_HEAD + sse("a"), STALL])
    begun = asyncio.Event()

    async def listen() -> None:
        async with aclosing(caller.answer()) as batches:
            async for _ in batches:
                begun.set()
                if how == "close":
                    return

    listening = asyncio.create_task(listen())
    await begun.wait()
    if how == "cancel":
        listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)

    await caller.upstream.requests[0].left.wait()
