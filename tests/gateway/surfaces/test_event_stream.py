from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat

from gateway.config import EdgeConfig
from gateway.http.reply import Reply
from gateway.surfaces.base import Framing
from gateway.surfaces.event_stream import EventStream
from tests.gateway.conftest import KEY, Edge
from tests.gateway.http.raw import parsed
from tests.gateway.http.test_reply import RecordingWriter
from tests.stand import service

BODY = b'{"model":"m","messages":[],"stream":true}'
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (KEY.encode(), len(BODY), BODY)
)
LARGE = "x" * 16_384


class Endless:
    """Endless steps of a stream, counted."""

    taken = 0

    def __iter__(self) -> Iterator[list[chat.ChatCompletionChunk]]:
        yield [service.started()]
        while True:
            self.taken += 1
            yield [service.text(LARGE)]


@pytest.fixture
def config() -> EdgeConfig:
    """An edge with a short write timeout."""
    return EdgeConfig(write_timeout_s=0.2, drain_timeout_s=0.1)


def stream_to(writer: RecordingWriter, *, http_1_0: bool = False, end: bytes = b"") -> EventStream:
    """A stream to a connection that only records."""
    reply = Reply(writer, "req-1", time.perf_counter(), http_1_0=http_1_0)
    return EventStream(reply, EdgeConfig(), Framing(end=end), {})


async def test_a_stream_is_a_write_for_each_piece() -> None:
    """The head is in the first write, the end in the last."""
    writer = RecordingWriter()
    stream = stream_to(writer)
    stream.begin()
    assert (writer.sent, stream.begun) == ([], True)
    stream.write(b"a" * 17)
    stream.write(b"b")
    await stream.end(b"c")
    first, second, last = writer.sent
    assert first.endswith(b"\r\n\r\n11\r\n" + b"a" * 17 + b"\r\n")
    assert (second, last) == (b"1\r\nb\r\n", b"1\r\nc\r\n0\r\n\r\n")
    assert parsed(first).headers["transfer-encoding"] == "chunked"
    assert first.count(b"Cache-Control") == 1
    assert parsed(first).headers["cache-control"] == "no-cache"


async def test_a_write_reports_a_client_that_is_behind() -> None:
    """Each piece reports it."""
    stream = stream_to(RecordingWriter())
    stream.begin()
    assert [stream.write(b"a"), stream.write(b"a" * 1001)] == [False, True]


async def test_a_stream_of_one_piece_has_a_head() -> None:
    """The head is in the write of its end."""
    writer = RecordingWriter()
    stream = stream_to(writer, end=b"!")
    stream.begin()
    await stream.end(b"c")
    (sent,) = writer.sent
    assert sent.endswith(b"\r\n\r\n2\r\nc!\r\n0\r\n\r\n")


async def test_an_empty_last_piece_ends_the_stream() -> None:
    """An API without an end marker has no last piece."""
    writer = RecordingWriter()
    stream = stream_to(writer)
    stream.begin()
    stream.write(b"a")
    await stream.end(b"")
    assert writer.sent[1:] == [b"0\r\n\r\n"]


async def test_a_stream_over_http_1_0_ends_with_the_connection() -> None:
    """HTTP/1.0 has no chunks."""
    writer = RecordingWriter()
    stream = stream_to(writer, http_1_0=True)
    stream.begin()
    stream.write(b"a")
    await stream.end(b"b")
    assert b"".join(writer.sent).endswith(b"\r\n\r\nab")
    assert not {"transfer-encoding", "connection"} & parsed(writer.sent[0]).headers.keys()


async def test_headers_of_a_stream_are_ascii() -> None:
    """Any other text is an error, and nothing is sent."""
    writer = RecordingWriter()
    stream = stream_to(writer)
    stream.headers["X"] = "é"
    with pytest.raises(UnicodeEncodeError):
        stream.begin()
    assert writer.sent == []


async def test_a_client_that_does_not_read_is_cut_off(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """The buffer and the wait are bounded. The call ends, too."""
    steps = Endless()
    edge.script.steps = steps
    with caplog.at_level(logging.INFO, "gateway.access"):
        _, writer = await asyncio.open_connection(edge.host, edge.port, limit=1024)
        writer.write(ASK)
        try:
            await asyncio.wait_for(edge.script.closed.wait(), 10)
        finally:
            writer.transport.abort()
    assert steps.taken * len(LARGE) < 16 * 1024 * 1024
    (line,) = [record for record in caplog.records if record.getMessage() == "request.ended"]
    assert vars(line)["status"] == 499
