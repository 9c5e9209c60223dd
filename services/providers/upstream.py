"""The calls to the providers: the only code of the pipeline that touches a socket.

What a request looks like and what an answer means is the dialect's. This module sends,
tells a stream from a document, watches the clock, and says how a call ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from functools import lru_cache

from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.clock import Clock
from services.errors import UpstreamError
from services.providers.base import Decoder, Dialect, Target, UpstreamRequest
from services.providers.http import HttpClient, HttpError, HttpErrorKind, HttpResponse, Url
from services.providers.patience import Patience
from services.providers.sse import SseParser

USER_AGENT = "pomogator"
ERROR_BODY_MAX = 64 * 1024
"""Bytes of a refusal that are read."""
ERROR_BODY_TIMEOUT_S = 5.0
"""How long a refusal may take to say why."""
DOCUMENT_MAX = 64 * 1024 * 1024
"""Bytes of an answer that is one JSON document."""

_ACCEPT = {True: "text/event-stream", False: "application/json"}
_BLANK = b"\xef\xbb\xbf \t\r\n"  # A byte order mark, and what keeps connections alive.

_FAILURES: Mapping[HttpErrorKind, tuple[reasons.ErrorReason.ValueType, str]] = {
    HttpErrorKind.BAD_REQUEST: (
        reasons.ERROR_REASON_UPSTREAM_UNREACHABLE,
        "The provider's channel is misconfigured.",
    ),
    HttpErrorKind.DNS: (
        reasons.ERROR_REASON_UPSTREAM_UNREACHABLE,
        "The provider's address cannot be found.",
    ),
    HttpErrorKind.UNREACHABLE: (
        reasons.ERROR_REASON_UPSTREAM_UNREACHABLE,
        "The provider cannot be reached.",
    ),
    HttpErrorKind.TLS: (
        reasons.ERROR_REASON_UPSTREAM_UNREACHABLE,
        "No secure connection to the provider could be made.",
    ),
    HttpErrorKind.TIMEOUT: (
        reasons.ERROR_REASON_UPSTREAM_UNREACHABLE,
        "The provider did not take the connection in time.",
    ),
    HttpErrorKind.DISCONNECTED: (
        reasons.ERROR_REASON_UPSTREAM_DISCONNECTED,
        "The provider broke off its answer.",
    ),
    HttpErrorKind.BAD_RESPONSE: (
        reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE,
        "The provider's answer cannot be read.",
    ),
}


class Upstream:
    """Sends requests to providers and gives their answers as chunks."""

    def __init__(self, http: HttpClient, clock: Clock) -> None:
        self._http = http
        self._clock = clock

    async def relay(
        self, request: UpstreamRequest, target: Target, dialect: Dialect, decoder: Decoder
    ) -> AsyncGenerator[list[pb.ChatCompletionChunk], None]:
        """The answer to `request`, in batches: one for what arrived together, never empty.

        Raises UpstreamError after the chunks that came before. An answer that was cut is
        an error also where it seemed complete, unless the provider had said that it was.
        Closing the generator closes the connection at once. Use it with `aclosing`.
        """
        patience = Patience(self._clock, target.channel, streamed=request.streamed)
        response = await self._accepted(request, target, dialect, patience)
        try:
            data = await _beginning(response)
            if data[:1] in {b"{", b"["}:
                yield decoder.whole(await _document(response, data, patience))
                return
            stream = _Stream(decoder)
            while True:
                batch, failure = stream.feed(data)
                if stream.over:
                    response.finish()
                if batch:
                    patience.suspend()
                    yield batch
                    patience.progressed()
                if failure is not None:
                    raise failure
                if stream.over:
                    return
                data = await response.read()
        except HttpError as error:
            raise _failure(error, patience) from None
        finally:
            patience.stop()
            response.close()

    async def _accepted(
        self, request: UpstreamRequest, target: Target, dialect: Dialect, patience: Patience
    ) -> HttpResponse:
        """The response, if the provider agrees to answer. `patience` watches over it."""
        try:
            response = await self._post(request, target, dialect, patience)
        except HttpError as error:
            raise _failure(error, patience) from None
        patience.watch(response.close)
        if response.status == 200:
            return response
        try:
            body = await _refusal(response, patience)
        finally:
            patience.stop()
            response.close()
        raise dialect.error(response.status, response.headers, body)

    async def _post(
        self, request: UpstreamRequest, target: Target, dialect: Dialect, patience: Patience
    ) -> HttpResponse:
        channel = target.channel
        try:
            url = _url(channel.base_url, request.path)
        except ValueError:
            raise HttpError(HttpErrorKind.BAD_REQUEST, "the base URL is not one") from None
        headers = _headers(request, target, dialect)
        try:
            async with asyncio.timeout(patience.left_s):
                return await self._http.post(
                    url, headers, request.body, connect_timeout_s=channel.connect_timeout_s
                )
        except TimeoutError:
            raise _late(patience) from None


class _Stream:
    """Turns the bytes of a stream into chunks."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._parser = SseParser()
        self._heard = False
        self.over = False
        """Whether the answer is complete, or broken: nothing more is to be read."""

    def feed(self, data: bytes) -> tuple[list[pb.ChatCompletionChunk], UpstreamError | None]:
        """The chunks in `data`, which is empty at the end, and the failure after them."""
        decoder = self._decoder
        chunks: list[pb.ChatCompletionChunk] = []
        try:
            events = self._parser.feed(data) if data else self._parser.close()
            self._heard = self._heard or bool(events)
            for event in events:
                chunks += decoder.feed(event)
                if decoder.done:
                    break
            self.over = decoder.done or not data
            if self.over:
                if not self._heard:
                    raise _bad_response()
                chunks += decoder.finish()
        except UpstreamError as error:
            return chunks, error
        return chunks, None


@lru_cache(maxsize=4096)
def _url(base_url: str, path: str) -> Url:
    return Url.parse(base_url).join(path)


def _headers(request: UpstreamRequest, target: Target, dialect: Dialect) -> Mapping[str, str]:
    """What is sent, by lower-case name. What is more particular stands."""
    headers = {
        "content-type": "application/json",
        "accept": _ACCEPT[request.streamed],
        "accept-encoding": "identity",
        "user-agent": USER_AGENT,
    }
    key = target.key.reveal()
    own = target.channel.headers
    for more in (dialect.auth_headers(key) if key else {}, own, request.headers):
        for name, value in more.items():
            headers[name.lower()] = value
    return headers


async def _beginning(response: HttpResponse) -> bytes:
    """The first bytes that say something. Raises UPSTREAM_BAD_RESPONSE on a page or nothing."""
    data = b""
    while not data:
        arrived = await response.read()
        if not arrived:
            raise _bad_response()
        data = arrived.lstrip(_BLANK)
    if data.startswith(b"<"):
        raise _bad_response()
    return data


async def _document(response: HttpResponse, beginning: bytes, patience: Patience) -> bytes:
    """The whole body. Every piece of it is progress."""
    pieces = [beginning]
    size = len(beginning)
    while data := await response.read():
        size += len(data)
        if size > DOCUMENT_MAX:
            raise _bad_response()
        pieces.append(data)
        if data.strip(_BLANK):
            patience.progressed()
    return b"".join(pieces)


async def _refusal(response: HttpResponse, patience: Patience) -> bytes:
    """What there is of a refusal's body: the status matters more than the rest of it."""
    patience.shorten(ERROR_BODY_TIMEOUT_S)
    body = b""
    try:
        while len(body) < ERROR_BODY_MAX and (data := await response.read()):
            body += data
    except HttpError:
        pass
    return body[:ERROR_BODY_MAX]


def _failure(error: HttpError, patience: Patience) -> UpstreamError:
    """How the call failed, without a word of the exception."""
    if patience.lost:
        return _late(patience)
    reason, message = _FAILURES[error.kind]
    return UpstreamError(reason, message)


def _late(patience: Patience) -> UpstreamError:
    if patience.answered:
        reason, message = reasons.ERROR_REASON_UPSTREAM_STALLED, "The provider fell silent."
    else:
        reason = reasons.ERROR_REASON_UPSTREAM_TIMEOUT
        message = "The provider did not begin to answer in time."
    return UpstreamError(reason, message)


def _bad_response() -> UpstreamError:
    return UpstreamError(*_FAILURES[HttpErrorKind.BAD_RESPONSE])
