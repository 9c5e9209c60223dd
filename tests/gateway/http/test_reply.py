from __future__ import annotations

import time

import pytest

from gateway.http.reply import Reply
from tests.gateway.http.raw import Answer, parsed


class RecordingWriter:
    """Client's connection that records what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ends_keep_alive = False
        self.writing_paused = False

    def put(self, data: bytes) -> bool:
        """Record the bytes. The client is behind after a long write."""
        self.sent.append(data)
        return len(data) > 1000

    async def drained(self, *, in_stream: bool = False) -> None:
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


def test_a_write_reports_a_client_that_is_behind(writer: RecordingWriter) -> None:
    """The handler then waits until the client has read."""
    assert Reply(writer, "req-1", time.perf_counter()).send(200, b"a" * 1001, {})
    assert not Reply(writer, "req-2", time.perf_counter()).send(200, b"a", {})


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


def test_headers_are_ascii(writer: RecordingWriter) -> None:
    """Any other text is an error, and nothing is sent."""
    with pytest.raises(UnicodeEncodeError):
        Reply(writer, "req-1", time.perf_counter()).send(200, b"{}", {"X": "é"})
    assert writer.sent == []


def test_the_last_answer_of_a_connection_closes_it(writer: RecordingWriter) -> None:
    """A draining edge sends the next request elsewhere."""
    writer.ends_keep_alive = True

    Reply(writer, "req-1", time.perf_counter()).send(200, b"{}", {})

    assert head(writer).headers["connection"] == "close"
