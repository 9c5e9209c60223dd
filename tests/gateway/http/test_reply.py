from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from gateway.http.reply import Reply
from tests.gateway.http.raw import Answer, parsed


class RecordingWriter:
    """Client's connection that records what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ends_keep_alive = False

    def put(self, data: bytes) -> bool:
        """Record the bytes. The client is behind after a long write."""
        self.sent.append(data)
        return len(data) > 1000

    async def drained(self) -> None:
        """Return at once."""


@pytest.fixture
def writer() -> RecordingWriter:
    """A client's connection."""
    return RecordingWriter()


def head(writer: RecordingWriter) -> Answer:
    """Parse the first write."""
    return parsed(writer.sent[0])


def test_a_whole_answer_is_one_write(writer: RecordingWriter) -> None:
    """It has its length, request ID, time, and the headers of every answer."""
    Reply(writer, "req-1", time.perf_counter()).send(404, b"{}", {"X-A": "b"})
    (sent,) = writer.sent
    answer = head(writer)
    assert sent.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert answer.body == b"{}"
    assert answer.headers.pop("date").endswith(" GMT")
    assert answer.headers.pop("openai-processing-ms").isdecimal()
    assert answer.headers == {
        "content-type": "application/json",
        "content-length": "2",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "server": "pomogator",
        "x-request-id": "req-1",
        "x-a": "b",
    }


def test_a_stream_is_a_write_for_each_piece(writer: RecordingWriter) -> None:
    """The head is in the first write, the end in the last."""
    reply = Reply(writer, "req-1", time.perf_counter())
    reply.begin({"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    assert (writer.sent, reply.status) == ([], 200)
    reply.write(b"a" * 17)
    reply.write(b"b")
    reply.end(b"c")
    first, second, last = writer.sent
    assert first.endswith(b"\r\n\r\n11\r\n" + b"a" * 17 + b"\r\n")
    assert (second, last) == (b"1\r\nb\r\n", b"1\r\nc\r\n0\r\n\r\n")
    assert head(writer).headers["transfer-encoding"] == "chunked"
    assert first.count(b"Cache-Control") == 1
    assert head(writer).headers["cache-control"] == "no-cache"


def test_a_write_reports_a_client_that_is_behind(writer: RecordingWriter) -> None:
    """Each piece of a stream reports it, and so does a whole answer."""
    reply = Reply(writer, "req-1", time.perf_counter())
    reply.begin({})
    assert [reply.write(b"a"), reply.write(b"a" * 1001), reply.end(b"a")] == [False, True, False]
    assert Reply(writer, "req-2", time.perf_counter()).send(200, b"a" * 1001, {})


def test_a_stream_of_one_piece_has_a_head(writer: RecordingWriter) -> None:
    """The head is in the write of its end."""
    reply = Reply(writer, "req-1", time.perf_counter())
    reply.begin({})
    reply.end(b"c")
    (sent,) = writer.sent
    assert sent.endswith(b"\r\n\r\n1\r\nc\r\n0\r\n\r\n")


def test_an_empty_last_piece_ends_the_stream(writer: RecordingWriter) -> None:
    """An API without an end marker has no last piece."""
    reply = Reply(writer, "req-1", time.perf_counter())
    reply.begin({})
    reply.write(b"a")
    reply.end(b"")
    assert writer.sent[1:] == [b"0\r\n\r\n"]


@pytest.mark.parametrize(
    ("http_1_0", "keep_alive", "connection"),
    [(False, True, None), (False, False, "close"), (True, True, "keep-alive"), (True, False, None)],
)
def test_the_connection_header_names_the_exception(
    writer: RecordingWriter, *, http_1_0: bool, keep_alive: bool, connection: str | None
) -> None:
    """HTTP/1.1 keeps connections by default, HTTP/1.0 closes them."""
    reply = Reply(writer, "req-1", time.perf_counter(), keep_alive=keep_alive, http_1_0=http_1_0)
    reply.send(200, b"{}", {})
    assert head(writer).headers.get("connection") == connection


def test_a_stream_over_http_1_0_ends_with_the_connection(writer: RecordingWriter) -> None:
    """HTTP/1.0 has no chunks."""
    reply = Reply(writer, "req-1", time.perf_counter(), keep_alive=True, http_1_0=True)
    reply.begin({})
    reply.write(b"a")
    reply.end(b"b")
    assert b"".join(writer.sent).endswith(b"\r\n\r\nab")
    assert "transfer-encoding" not in head(writer).headers
    assert not reply.keep_alive


_SENDINGS: dict[str, Callable[[Reply], object]] = {
    "whole": lambda reply: reply.send(200, b"{}", {"X": "é"}),
    "stream": lambda reply: reply.begin({"X": "é"}),
}


@pytest.mark.parametrize("kind", _SENDINGS)
def test_headers_are_ascii(writer: RecordingWriter, kind: str) -> None:
    """Any other text is an error, and nothing is sent."""
    with pytest.raises(UnicodeEncodeError):
        _SENDINGS[kind](Reply(writer, "req-1", time.perf_counter()))
    assert writer.sent == []


def test_the_last_answer_of_a_connection_closes_it(writer: RecordingWriter) -> None:
    """A draining edge sends the next request elsewhere."""
    writer.ends_keep_alive = True

    Reply(writer, "req-1", time.perf_counter()).send(200, b"{}", {})

    assert head(writer).headers["connection"] == "close"
