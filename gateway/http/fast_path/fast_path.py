"""The short way of an ordinary request for a completion, around aiohttp's parser and router.

An ordinary request is what clients really send: `POST /v1/chat/completions HTTP/1.1`, a head that
comes whole, plain headers, one Content-Length, JSON. Whatever is otherwise, even in a way that is
allowed (chunks, `Expect`, another version, space at the end of a line), is none: it goes to
aiohttp as it came. So nothing is decided here about what is right in HTTP, and two readers
cannot disagree about where an ordinary request ends.

`python -m tests.bench.edge` measures both ways. A whole answer costs the edge 85 µs of CPU by this
one and 161 by aiohttp, a refusal 43 and 103.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from multidict import CIMultiDict

from gateway.errors import ApiError, internal
from gateway.http.auth_throttle import AuthThrottle
from gateway.http.body import is_json
from gateway.http.credentials import unchecked_key
from gateway.http.exchange import Exchange
from gateway.http.middleware import CLIENT_CLOSED, AccessLine, write_line
from gateway.overload.admission_check import AdmissionCheck
from gateway.telemetry.access_log import ObservedRequest, RequestObserver

METHOD, PATH = "POST", "/v1/chat/completions"

HEAD_MAX = 8190
"""Bytes of a head. Of aiohttp, each line may have as many."""

# Names as RFC 9110, section 5.6.2, has them; values only in printable ASCII. `++` and `*+` never
# try again with less: whatever comes is read once.
_HEAD = re.compile(
    rb"POST /v1/chat/completions HTTP/1\.1\r\n"
    rb"((?:[!#-'*+\-.0-9A-Z^-z|~]++:[\t\x20-\x7e]*+\r\n)++)\r\n"
)
_LINE = re.compile(r"([^:]++):[\t ]*+([^\r]*+)\r\n")
_LENGTH = re.compile(r"[1-9][0-9]{0,9}")
_LINES_MAX = 100
_NEEDED = frozenset({"host", "content-length", "authorization"})
# With these, what follows may be more than a body and its answer; or aiohttp may say no.
_EXTRAORDINARY = frozenset(
    {"transfer-encoding", "content-encoding", "expect", "upgrade"}
    | {"proxy-connection", "sec-websocket-key1"}
)

_log = logging.getLogger("gateway")


class RequestHead(NamedTuple):
    """The head of an ordinary request."""

    headers: CIMultiDict[str]
    """All of them."""
    begin: int
    """Where the body begins."""
    end: int
    """Where it ends, and the next request may begin."""


class FastPath:
    """Reads heads, and runs the handler of completions as the border does."""

    def __init__(
        self,
        handler: Callable[[Exchange], Awaitable[None]],
        guesses: AuthThrottle,
        body_bytes_max: int,
        watch: RequestObserver | None = None,
        admission: AdmissionCheck | None = None,
    ) -> None:
        """Without `admission` every call is admitted."""
        self.admission = admission or AdmissionCheck()
        self._watch = watch
        self._handler = handler
        self._guesses = guesses
        self._body_bytes_max = body_bytes_max

    def read(self, data: bytes) -> RequestHead | None:
        """The head of the ordinary request that `data` begins with, if it does."""
        match = _HEAD.match(data, 0, HEAD_MAX)
        if match is None:
            return None
        begin = match.end()
        if data.find(b" \r", 0, begin) >= 0 or data.find(b"\t\r", 0, begin) >= 0:
            return None
        lines = _LINE.findall(match[1].decode("ascii"))
        names = {name.lower() for name, _ in lines}
        # Of what comes twice, some is an error, and some counts by its last word.
        if len(lines) > _LINES_MAX or len(names) != len(lines):
            return None
        headers = CIMultiDict(lines)
        if not (names >= _NEEDED and names.isdisjoint(_EXTRAORDINARY) and _is_ordinary(headers)):
            return None
        length = int(headers["Content-Length"])
        if length > self._body_bytes_max:
            return None
        return RequestHead(headers, begin, begin + length)

    async def serve(self, exchange: Exchange, remote: Callable[[], str]) -> None:
        """Answers, for failures as well, and writes one line about it.

        `remote` says the client's address.

        Raises:
            ConnectionError: the client is gone.
        """
        reply = exchange.reply
        watched = self._begin(exchange)
        status = CLIENT_CLOSED
        try:
            try:
                await self._handler(exchange)
            except ApiError as error:
                _refuse(exchange, self._guesses.judged(error, remote()))
            except ConnectionError:
                raise
            except Exception:  # noqa: BLE001 - a border: whatever it is, it is ours
                _log.exception("request.failed", extra={"request_id": reply.request_id})
                _refuse(exchange, internal(reply.request_id))
            status = reply.status
        finally:
            self._end(exchange, watched, status)

    def turned_away(self, exchange: Exchange) -> bool:
        """Whether there is no room for it: then it has been answered, without being looked at.

        Nothing waits for its turn in the loop, which is busy.

        Raises:
            ConnectionError: the client is gone.
        """
        error = self.admission.admit(unchecked_key(exchange.headers))
        if error is None:
            return False
        watched = self._begin(exchange)
        try:
            _refuse(exchange, error)
        finally:
            self._end(exchange, watched, exchange.reply.status or CLIENT_CLOSED)
        return True

    def _begin(self, exchange: Exchange) -> ObservedRequest | None:
        watch = self._watch
        if watch is None:
            return None
        return watch.begin(METHOD, PATH, PATH, exchange.headers, exchange.outcome)

    def _end(self, exchange: Exchange, watched: ObservedRequest | None, status: int) -> None:
        reply, watch = exchange.reply, self._watch
        line = AccessLine(reply.request_id, METHOD, PATH, reply.started)
        write_line(line, exchange.outcome, status)
        if watch and watched:
            watch.end(watched, reply.request_id, status, reply.started, reply.begun_at)


def _is_ordinary(headers: CIMultiDict[str]) -> bool:
    return (
        _LENGTH.fullmatch(headers["Content-Length"]) is not None
        and headers.get("Connection", "keep-alive").lower() == "keep-alive"
        and is_json(headers)
    )


def _refuse(exchange: Exchange, error: ApiError) -> None:
    reply = exchange.reply
    if reply.status:
        raise ConnectionAbortedError("it failed in the middle of its answer")
    exchange.outcome["code"] = error.code
    reply.keep_alive = reply.keep_alive and not error.row.closes
    reply.send(error.status, error.body(), error.headers())
