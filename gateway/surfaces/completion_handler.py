"""Completion handler: decode, call, render, for every surface.

The call to the service ends with the client's request: a disconnect cancels the call.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import aclosing

from aiohttp import web

from gateway.backend import Backend, CallOptions, StreamReply
from gateway.config import EdgeConfig
from gateway.errors import ApiError, internal
from gateway.http.body import expect_continue
from gateway.http.body_admission import BodyAdmission
from gateway.http.call_options import (
    deadline_s,
    idempotency_key,
    parameter_policy,
    trace_context,
)
from gateway.http.credentials import api_key, unchecked_key
from gateway.http.endpoint import Endpoint
from gateway.http.exchange import AlreadySentResponse, Exchange, RoutedExchange
from gateway.http.middleware import BEGUN
from gateway.overload.in_flight_calls import InFlightCalls
from gateway.surfaces.answer_headers import cost_header, notes_header
from gateway.surfaces.base import StreamRenderer, Surface, SurfaceRequest
from gateway.surfaces.event_stream import EventStream
from services.domain.events import Event, Started
from services.domain.spec import CompletionRequest

_MODEL_LOGGED_MAX = 128

_log = logging.getLogger(__name__)


class CompletionHandler:
    """Handler of the completion requests of one surface, which is one inbound API."""

    def __init__(
        self,
        surface: Surface,
        backend: Backend,
        calls: InFlightCalls,
        config: EdgeConfig,
        admission: BodyAdmission,
    ) -> None:
        self._surface = surface
        self._backend = backend
        self._calls = calls
        self._config = config
        self._admission = admission

    def endpoints(self) -> Iterator[Endpoint]:
        """Yield the surface's routes for the fast path."""
        for method, path in self._surface.routes:
            yield Endpoint(
                method=method,
                path=path,
                credential_headers=self._surface.credential_headers,
                handle=self.handle,
                render_error=self._surface.render_error,
            )

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the surface's routes for aiohttp's router."""
        return [
            web.route(method, path, self.handle_routed, expect_handler=expect_continue)
            for method, path in self._surface.routes
        ]

    async def handle_routed(self, request: web.Request) -> web.StreamResponse:
        """Answer a request that aiohttp has routed."""
        if error := self._admission.calls.admit_body():
            raise error
        caller = unchecked_key(request.headers, self._surface.credential_headers)
        exchange = RoutedExchange(request, self._config, self._admission, caller)
        try:
            await self.handle(exchange)
        finally:
            request[BEGUN] = exchange.reply.begun_at
            if exchange.memory is not None:
                exchange.memory.release()
        return AlreadySentResponse(exchange.reply)

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request, whole or as a stream.

        Raises:
            ApiError: it failed before anything was sent.
            ConnectionError: the client is gone.
        """
        headers, surface = exchange.headers, self._surface
        key = api_key(headers, surface.credential_headers)
        idempotency = idempotency_key(headers)
        policy = parameter_policy(headers)
        surface.check_headers(headers)
        request, request_bytes = await self._decode(exchange, key)
        spec, streams = request.spec, request.stream
        exchange.outcome.update(model=spec.model[:_MODEL_LOGGED_MAX], stream=streams)
        call = CallOptions(
            key=key,
            request_id=exchange.reply.request_id,
            deadline_s=deadline_s(headers, self._config, whole=not streams),
            request_bytes=request_bytes,
            idempotency_key=idempotency,
            trace_context=trace_context(headers),
        )
        asked = CompletionRequest(spec=spec, parameter_policy=policy)
        if streams:
            renderer, reply = request.stream_renderer(), self._backend.stream(asked, call)
            del request, spec, asked  # They may be large, and the stream long.
            await self._stream(exchange, key, renderer, reply)
            return
        with self._calls.track(key):
            completion, answer_headers = await self._backend.whole(asked, call)
            self._admission.known_keys.add(key)
        answer_headers = {
            **surface.answer_headers(exchange.reply.request_id),
            **answer_headers,
            **notes_header(completion.notes),
            **cost_header(completion),
        }
        if exchange.reply.send(200, request.render(completion, answer_headers), answer_headers):
            await exchange.reply.drained()

    async def _decode(self, exchange: Exchange, key: str) -> tuple[SurfaceRequest, int]:
        """Return the request, and the size of its body."""
        body = await exchange.body()
        try:
            request = await self._surface.decode(body, exchange.headers, self._config)
        except ApiError:
            # A body that is wrong costs time: with an invalid key it is a guess of a key.
            await self._admission.known_keys.require(key, exchange.reply.request_id)
            raise
        if exchange.memory is not None:
            exchange.memory.shrink()
        return request, len(body)

    async def _stream(
        self, exchange: Exchange, key: str, renderer: StreamRenderer, reply: StreamReply
    ) -> None:
        own = self._surface.answer_headers(exchange.reply.request_id)
        with EventStream(exchange.reply, self._config, self._surface.framing, own) as stream:
            try:
                with self._calls.track(key):
                    last = await _relay(reply, renderer, stream)
                    self._admission.known_keys.add(key)
            except ApiError as error:
                if not stream.begun:
                    raise
                exchange.outcome["code"] = error.code
                last = renderer.error(error)
            except ConnectionError:
                raise  # The client is gone.
            except Exception:
                if not stream.begun:
                    raise
                # The status has been sent: the error border could not report the failure.
                request_id = exchange.reply.request_id
                _log.exception("stream.failed", extra={"request_id": request_id})
                last = renderer.error(internal(request_id))
            await stream.end(last)


async def _relay(reply: StreamReply, renderer: StreamRenderer, stream: EventStream) -> bytes:
    """Write the events of each batch when it arrives.

    Return the events of the last batch unsent: they go out in one write with the end.
    """
    last = b""
    async with aclosing(reply.batches) as batches:
        async for batch in batches:
            if not renderer.started:
                stream.begin({**reply.headers, **_notes(batch[0])})
            events = renderer.render(batch)
            if renderer.finished:
                last = events
            elif events and stream.write(events):
                await stream.drained()
    if not renderer.finished:
        raise RuntimeError("the service ended a stream with OK, but without `finished`")
    return last


def _notes(first: Event) -> dict[str, str]:
    return notes_header(first.notes) if isinstance(first, Started) else {}
