from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from gateway.http.reply import Reply
from tests.gateway.http.raw import Answer, parsed


class Wire:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ends_keep_alive = False

    def put(self, data: bytes) -> bool:
        """Keeps it. What is longer than a line is too much."""
        self.sent.append(data)
        return len(data) > 1000

    async def drained(self) -> None:
        """At once."""


@pytest.fixture
def wire() -> Wire:
    """A connection."""
    return Wire()


def head(wire: Wire) -> Answer:
    """What was sent first."""
    return parsed(wire.sent[0])


def test_a_whole_answer_is_one_write(wire: Wire) -> None:
    """With its length, its id, its time, and what every answer bears."""
    Reply(wire, "req-1", time.perf_counter()).send(404, b"{}", {"X-A": "b"})
    (sent,) = wire.sent
    answer = head(wire)
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


def test_a_stream_is_a_write_for_each_piece(wire: Wire) -> None:
    """The head goes with the first, the end with the last."""
    reply = Reply(wire, "req-1", time.perf_counter())
    reply.begin({"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    assert (wire.sent, reply.status) == ([], 200)
    reply.write(b"a" * 17)
    reply.write(b"b")
    reply.end(b"c")
    first, second, last = wire.sent
    assert first.endswith(b"\r\n\r\n11\r\n" + b"a" * 17 + b"\r\n")
    assert (second, last) == (b"1\r\nb\r\n", b"1\r\nc\r\n0\r\n\r\n")
    assert head(wire).headers["transfer-encoding"] == "chunked"
    assert first.count(b"Cache-Control") == 1
    assert head(wire).headers["cache-control"] == "no-cache"


def test_who_writes_is_told_when_to_wait(wire: Wire) -> None:
    """Of every piece, and of a whole answer."""
    reply = Reply(wire, "req-1", time.perf_counter())
    reply.begin({})
    assert [reply.write(b"a"), reply.write(b"a" * 1001), reply.end(b"a")] == [False, True, False]
    assert Reply(wire, "req-2", time.perf_counter()).send(200, b"a" * 1001, {})


def test_an_empty_stream_still_has_a_head(wire: Wire) -> None:
    """Where the last piece is the first."""
    reply = Reply(wire, "req-1", time.perf_counter())
    reply.begin({})
    reply.end(b"c")
    (sent,) = wire.sent
    assert sent.endswith(b"\r\n\r\n1\r\nc\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("http_1_0", "keep_alive", "connection"),
    [(False, True, None), (False, False, "close"), (True, True, "keep-alive"), (True, False, None)],
)
def test_the_connection_is_spoken_of_where_it_is_not_the_rule(
    wire: Wire, *, http_1_0: bool, keep_alive: bool, connection: str | None
) -> None:
    """HTTP/1.1 keeps it, HTTP/1.0 closes it."""
    reply = Reply(wire, "req-1", time.perf_counter(), keep_alive=keep_alive, http_1_0=http_1_0)
    reply.send(200, b"{}", {})
    assert head(wire).headers.get("connection") == connection


def test_a_stream_to_an_old_client_ends_with_its_connection(wire: Wire) -> None:
    """HTTP/1.0 has no chunks."""
    reply = Reply(wire, "req-1", time.perf_counter(), keep_alive=True, http_1_0=True)
    reply.begin({})
    reply.write(b"a")
    reply.end(b"b")
    assert b"".join(wire.sent).endswith(b"\r\n\r\nab")
    assert "transfer-encoding" not in head(wire).headers
    assert not reply.keep_alive


_SENDINGS: dict[str, Callable[[Reply], object]] = {
    "whole": lambda reply: reply.send(200, b"{}", {"X": "é"}),
    "stream": lambda reply: reply.begin({"X": "é"}),
}


@pytest.mark.parametrize("kind", _SENDINGS)
def test_headers_are_ascii(wire: Wire, kind: str) -> None:
    """Anything else is a fault, and nothing is sent."""
    with pytest.raises(UnicodeEncodeError):
        _SENDINGS[kind](Reply(wire, "req-1", time.perf_counter()))
    assert wire.sent == []


def test_the_last_answer_of_a_connection_says_so(wire: Wire) -> None:
    """Who is on the way out has the next request go elsewhere."""
    wire.ends_keep_alive = True

    Reply(wire, "req-1", time.perf_counter()).send(200, b"{}", {})

    assert head(wire).headers["connection"] == "close"
