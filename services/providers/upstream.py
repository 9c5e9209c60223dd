"""Client of the providers' APIs: sends the requests that dialects have encoded.

An answer comes as batches of events or as one document. It tells a stream from a document, enforces
timeouts, and maps transport failures to errors.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Final, Protocol, Self, cast

import msgspec

from services.clock import Clock
from services.domain.completion import WholeAnswer
from services.domain.events import Batch
from services.errors import UpstreamError
from services.providers.answer_bodies import BLANK, read_beginning, read_document, read_error_body
from services.providers.base import Decoder, ProviderApi, Target, UpstreamRequest
from services.providers.channel_failures import ChannelFailures
from services.providers.http import HttpClient, HttpError, HttpResponse
from services.providers.raw_lane import RawDecoder
from services.providers.request_heads import new_head
from services.providers.stream_reader import Reader, StreamReader
from services.providers.surrogate_joiner import decode_replaced
from services.providers.timeouts import Timeouts
from services.providers.transport_errors import timeout_error, transport_error

LEFT: Final[Batch] = []
"""Batch that an answer with `outlives_reader` returns when its reader is cancelled."""

HTTP_OK = 200
_NO_BEGINNING = frozenset({b"", *(BLANK[at : at + 1] for at in range(len(BLANK))), b"<"})


class FailureSink(Protocol):
    """Takes the failures of targets, such as `ChannelFailures`."""

    def add(self, target: Target, error: UpstreamError, cause: str = "") -> None:
        """Take a failure. `cause` has the words of the system or of TLS."""
        ...


class Upstream:
    """Client of the providers' APIs: sends requests and returns the answers as events."""

    def __init__(
        self, http: HttpClient, clock: Clock, failures: ChannelFailures | None = None
    ) -> None:
        """Failures are recorded in `failures`, for operators."""
        self._http = http
        self._clock = clock
        self._failures = failures or ChannelFailures(clock)

    def answer(
        self,
        request: UpstreamRequest,
        target: Target,
        api: ProviderApi,
        decoder: Decoder,
        first_s: float = math.inf,
        *,
        failures: FailureSink | None = None,
    ) -> UpstreamAnswer:
        """Return the answer to `request`, which is sent when the first batch is awaited.

        The answer has to begin within `first_s` and within the channel's timeout of a first event.
        A document that could not be streamed has `first_s` and the channel's total timeout.
        `failures` gets its failures in place of the record for operators.
        """
        channel, now = target.channel, self._clock.now()
        if request.may_stream:
            first_s = min(first_s, channel.first_token_timeout_s)
        timeouts = Timeouts(
            self._clock, now, first_s, channel.progress_timeout_s, now + channel.total_timeout_s
        )
        sink = failures or self._failures
        return UpstreamAnswer(self._http, request, target, api, decoder, timeouts, sink)


class UpstreamAnswer(msgspec.Struct, eq=False):
    """Answer of one attempt: an async iterator of batches. The user must close it in every case.

    An UpstreamError is raised after the events before it. A disconnected stream is an error unless
    the provider had marked its end.
    """

    _http: HttpClient
    _request: UpstreamRequest
    _target: Target
    _api: ProviderApi
    _decoder: Decoder
    _timeouts: Timeouts
    _failures: FailureSink
    _stream: Reader | None = None
    """Reader of the stream, from its beginning until the answer is closed."""
    _response: HttpResponse | None = None
    _failure: UpstreamError | None = None
    _is_closed: bool = False
    is_sent: bool = False
    """Whether the request has left for the provider, which may bill it from then on."""
    outlives_reader: bool = False
    """Whether the answer goes on after its reader was cancelled: another one may read it."""

    def __aiter__(self) -> Self:
        return self

    async def first(self) -> Batch | WholeAnswer:
        """Send the request, and wait for the first batch, or for a whole answer.

        It is a whole answer where the provider sends a document. Any exception closes the
        connection.
        """
        timeouts = self._timeouts
        try:
            response = self._response = await self._wait_for_response()
            if response.status != HTTP_OK:
                body = await read_error_body(response, timeouts)
                raise self._api.error(response.status, response.headers, body)
            while (data := response.take()) is None:
                await response.arrival
            if data[:1] in _NO_BEGINNING:
                data = await read_beginning(response, data)
            if data[:1] not in {b"{", b"["}:
                return await self._first_batch(response, data)
            body = data if response.is_taken else await read_document(response, data, timeouts)
            try:
                answer = self._decoder.whole(body)
            except UpstreamError as error:
                replaced = decode_replaced(self._decoder, body, error)
                if replaced is None:
                    raise
                answer = replaced
        except BaseException as error:  # noqa: BLE001 - raised again
            raise self._closed_by(error) from None
        self.close()
        return answer

    async def __anext__(self) -> Batch:
        """Wait for the next batch. Any exception closes the connection.

        With `outlives_reader` a cancellation closes nothing. `LEFT` is returned instead.
        """
        stream, response, timeouts = self._stream, self._response, self._timeouts
        if stream is None or response is None:
            return await self._end_or_begin()
        timeouts.waits_since = timeouts.clock.now()
        try:
            while True:
                await response.arrival
                data = response.take()
                if data is None:
                    continue
                batch, self._failure = stream.feed(data)
                if stream.complete or self._failure is not None:
                    self.close()
                if batch:
                    timeouts.waits_since = math.inf
                    return batch
                if self._is_closed:
                    raise self._end()
        except BaseException as error:  # noqa: BLE001 - raised again
            if self.outlives_reader and isinstance(error, asyncio.CancelledError):
                response.renew_arrival()
                return LEFT
            raise self._closed_by(error) from None

    @property
    def is_late(self) -> bool:
        """Whether the provider has the request, and a timeout of the gateway has passed."""
        return self.is_sent and self._timeouts.lost

    def close(self) -> None:
        """Cancel the request at the provider, unless it is complete. Returns at once."""
        if self._is_closed:
            return
        self._is_closed = True
        if (timer := self._timeouts.timer) is not None:
            timer.cancel()
        response, stream = self._response, self._stream
        self._stream = None
        if response is None:
            return
        if stream is not None and stream.complete and not response.complete:
            response.finish()
        else:
            response.close()

    async def aclose(self) -> None:
        """See `close`."""
        self.close()

    def _closed_by(self, error: BaseException) -> BaseException:
        """Close the connection after an error, and return the error to raise."""
        self.close()
        if isinstance(error, HttpError):
            failure = transport_error(error, self._timeouts)
            cause = "" if self._timeouts.lost else error.cause
            self._failures.add(self._target, failure, cause)
            return failure
        if isinstance(error, UpstreamError):
            self._failures.add(self._target, error)
        return error

    async def _wait_for_response(self) -> HttpResponse:
        """Send the request, and wait for its response's headers. Raises UPSTREAM_TIMEOUT."""
        # As in `asyncio.timeout`: the timer cancels the task, and `uncancel` tells a timeout from a
        # cancellation by the caller. The timer is that of `Timeouts`.
        timeouts, request, target = self._timeouts, self._request, self._target
        del self._request  # The body may be megabytes: it goes when the response has come.
        kind = (self._api, request.path, request.streamed, *request.headers.items())
        task = cast("asyncio.Task[object]", asyncio.current_task())
        cancelling = task.cancelling()
        timeouts.start(task.cancel)
        try:
            head = target.heads.get(kind) or new_head(kind, request, target, self._api)
            response = await self._http.pools[head.origin].send(
                head,
                request.body,
                connect_timeout_s=target.channel.connect_timeout_s,
                on_sent=partial(setattr, self, "is_sent", True),
            )
        except BaseException:
            if timeouts.lost and task.uncancel() <= cancelling:
                raise timeout_error(timeouts) from None
            raise
        timeouts.on_late = response.close
        return response

    async def _first_batch(self, response: HttpResponse, data: bytes) -> Batch:
        """Return the first batch of a stream that begins with `data`."""
        decoder = self._decoder
        stream = decoder.reader() if isinstance(decoder, RawDecoder) else StreamReader(decoder)
        self._stream = stream
        while True:
            batch, self._failure = stream.feed(data)
            if stream.complete or self._failure is not None:
                self.close()
            if batch:
                self._timeouts.answered = True
                self._timeouts.waits_since = math.inf
                return batch
            if self._is_closed:
                raise self._end()
            data = await response.read()

    async def _end_or_begin(self) -> Batch:
        """Raise what comes after the last batch, or return the first one."""
        if not self._is_closed:
            first = await self.first()
            return first.events() if isinstance(first, WholeAnswer) else first
        failure, self._failure = self._failure, None
        if failure is None:
            raise StopAsyncIteration
        self._failures.add(self._target, failure)
        try:
            raise failure
        finally:
            # A frame that knows its exception would keep the call's request until the next
            # garbage collection.
            del failure

    def _end(self) -> Exception:
        """The exception after the last batch: the failure once, then StopAsyncIteration."""
        failure, self._failure = self._failure, None
        return failure or StopAsyncIteration()
