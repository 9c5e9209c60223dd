"""Request bodies: JSON only, bounded in size and time.

`read_body` reads a body from aiohttp. `IncomingBody` collects one of known length for
`gateway.http.fast_path.fast_path_connection`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiMapping

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.overload.body_budget import BodyMemory
from services.domain.error_reason import ErrorReason

_JSON = "application/json"
_JSON_UTF8 = re.compile(r'application/json\s*(;\s*charset="?utf-?8"?\s*)?;?\s*', re.IGNORECASE)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def expect_continue(request: web.Request) -> None:
    """Refuse any `Expect` but `100-continue`, which `read_body` answers.

    Raises HTTPExpectationFailed: the request expects something else.
    """
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed


async def read_body(
    request: web.Request, config: EdgeConfig, memory: BodyMemory | None = None
) -> bytes:
    """Read the whole body.

    The headers are checked before a byte is read. A client that waits for `100 Continue` gets it
    here, after its key was checked. With `memory` the body counts for the budget of bodies. Raises
    ApiError: the body is not JSON by its type, is compressed, too large, too slow or exceeds the
    budget.
    """
    _refuse_by_headers(request, config)
    if "Expect" in request.headers and not request.content.is_eof():
        await request.writer.write(_CONTINUE)
        # aiohttp takes any output for the beginning of the answer.
        request.writer.output_size = 0
    try:
        return await _receive(request.content, config, memory)
    except TimeoutError:
        raise body_timeout() from None
    except (web.RequestPayloadError, HttpProcessingError):
        message = "The body is not framed as HTTP/1.1 says."
        raise ApiError(ErrorReason.BAD_HTTP, message) from None


def is_json(headers: MultiMapping[str]) -> bool:
    """Whether `Content-Type` is JSON in UTF-8, or absent."""
    kind = headers.get("Content-Type", _JSON)
    return kind == _JSON or _JSON_UTF8.fullmatch(kind) is not None


def body_timeout() -> ApiError:
    """Return the error for a body that does not arrive in time."""
    message = "The body did not arrive in time."
    return ApiError(ErrorReason.REQUEST_TIMEOUT, message)


class IncomingBody:
    """A body that is arriving. Its length is known and within the limit."""

    def __init__(self, length: int, config: EdgeConfig, give_up: Callable[[], None]) -> None:
        """`give_up` is called once, if the body is too slow."""
        self._length = length
        self._config = config
        self._give_up = give_up
        self.over = asyncio.Event()
        """Set once the body is whole, or will not arrive."""
        self._pieces: list[bytes] = []
        self.size = 0
        """Bytes that have arrived."""
        self._goal = config.body_stall_bytes
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._end = now + config.body_timeout_s
        self._due = min(self._end, now + config.body_stall_s)
        self._timer = self._loop.call_at(self._due, self._check)

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes. Return those after the body's end with its last piece, else None."""
        over = self.size + len(data) - self._length
        if over >= 0:
            self.cancel()
            self._pieces.append(data[: len(data) - over] if over else data)
            return data[len(data) - over :]
        self._pieces.append(data)
        self.size += len(data)
        if self.size >= self._goal:
            self._goal = self.size + self._config.body_stall_bytes
            self._due = min(self._end, self._loop.time() + self._config.body_stall_s)
        return None

    def whole(self) -> bytes:
        """Return the body, after its last piece."""
        return b"".join(self._pieces)

    def cancel(self) -> None:
        """Stop waiting for the body."""
        self._timer.cancel()
        self.over.set()

    def _check(self) -> None:
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._check)
        else:
            self.over.set()
            self._give_up()


def _refuse_by_headers(request: web.Request, config: EdgeConfig) -> None:
    if not is_json(request.headers):
        message = "The body must be sent as `Content-Type: application/json`, in UTF-8."
        raise ApiError(ErrorReason.UNSUPPORTED_MEDIA_TYPE, message)
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        message = "The body must not be compressed."
        raise ApiError(ErrorReason.UNSUPPORTED_MEDIA_TYPE, message)
    if (request.content_length or 0) > config.body_bytes_max:
        raise _too_large(config)


def _too_large(config: EdgeConfig) -> ApiError:
    message = f"The body is larger than {config.body_bytes_max} bytes."
    return ApiError(ErrorReason.REQUEST_TOO_LARGE, message)


async def _receive(content: StreamReader, config: EdgeConfig, memory: BodyMemory | None) -> bytes:
    if content.is_eof() and content.exception() is None:
        # The whole body came with the headers, which is usual.
        body = content.read_nowait()
        if len(body) > config.body_bytes_max:
            raise _too_large(config)
        _count(memory, body)
        return body
    loop = asyncio.get_running_loop()
    end = loop.time() + config.body_timeout_s
    pieces: list[bytes] = []
    size = 0
    goal = config.body_stall_bytes
    async with asyncio.timeout_at(min(end, loop.time() + config.body_stall_s)) as limit:
        while piece := await content.readany():
            pieces.append(piece)
            size += len(piece)
            if size > config.body_bytes_max:
                raise _too_large(config)
            _count(memory, piece)
            if size >= goal:
                goal = size + config.body_stall_bytes
                limit.reschedule(min(end, loop.time() + config.body_stall_s))
    return b"".join(pieces)


def _count(memory: BodyMemory | None, piece: bytes) -> None:
    if memory is not None and (error := memory.add(len(piece))):
        raise error
