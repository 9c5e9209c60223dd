"""Completion handler: decode, call, render, for every surface.

The call to the service ends with the client's request: a disconnect cancels the call.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import grpc
from aiohttp import web
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub

from gateway.config import EdgeConfig
from gateway.errors import ApiError, internal
from gateway.http.body import expect_continue
from gateway.http.body_admission import BodyAdmission
from gateway.http.credentials import api_key, unchecked_key
from gateway.http.endpoint import Endpoint
from gateway.http.exchange import AlreadySentResponse, Exchange, RoutedExchange
from gateway.http.middleware import BEGUN
from gateway.rpc.call_metadata import (
    call_metadata,
    cost_header,
    deadline_s,
    notes_header,
    parameter_policy,
    response_headers,
)
from gateway.rpc.in_flight_calls import InFlightCalls
from gateway.surfaces.base import StreamRenderer, Surface, SurfaceRequest
from gateway.surfaces.event_stream import EventStream
from services.common.call_names import TIMEOUT_HEADER

_DEADLINE_ROUNDING_S = 0.01
"""Subtracted from the timeout that gRPC sends, which gRPC rounds up to about three digits: 599.99 s
arrive as 600 s. The service compares it with the exact timeout in `x-pomogator-timeout`
(`services.rpc.failure_border.queue_wait_s`)."""

_Messages: TypeAlias = (
    "grpc.aio.UnaryStreamCall[chat.StreamChatCompletionRequest, chat.StreamChatCompletionResponse]"
)

_MODEL_LOGGED_MAX = 128

_log = logging.getLogger(__name__)


class CompletionHandler:
    """Handler of the completion requests of one surface, which is one inbound API."""

    def __init__(
        self,
        surface: Surface,
        channel: grpc.aio.Channel,
        calls: InFlightCalls,
        config: EdgeConfig,
        admission: BodyAdmission,
    ) -> None:
        self._surface = surface
        self._stub = ChatCompletionServiceStub(channel)
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
        metadata = call_metadata(headers, key, exchange.reply.request_id)
        policy = parameter_policy(headers)
        surface.check_headers(headers)
        request = await self._decode(exchange, key)
        rpc_request = request.rpc_request
        rpc_request.parameter_policy = policy
        streams = isinstance(rpc_request, chat.StreamChatCompletionRequest)
        exchange.outcome.update(model=rpc_request.spec.model[:_MODEL_LOGGED_MAX], stream=streams)
        limit_s = deadline_s(headers, self._config, whole=not streams)
        metadata = (*metadata, (TIMEOUT_HEADER, str(limit_s)))
        timeout_s = limit_s - min(_DEADLINE_ROUNDING_S, limit_s / 100)
        if isinstance(rpc_request, chat.StreamChatCompletionRequest):
            messages = self._stub.StreamChatCompletion(
                rpc_request, metadata=metadata, timeout=timeout_s
            )
            await self._stream(exchange, key, request.stream_renderer(), messages)
            return
        call = self._stub.CreateChatCompletion(rpc_request, metadata=metadata, timeout=timeout_s)
        with self._calls.track(call, exchange.reply.request_id, key):
            answer = await call
            self._admission.known_keys.add(key)
            answer_headers = response_headers(await call.initial_metadata())
        answer_headers |= notes_header(answer.notes) | cost_header(answer)
        if exchange.reply.send(200, request.render(answer), answer_headers):
            await exchange.reply.drained()

    async def _decode(self, exchange: Exchange, key: str) -> SurfaceRequest:
        body = await exchange.body()
        try:
            request = await self._surface.decode(body, exchange.headers, self._config)
        except ApiError:
            # A body that is wrong costs time: with an invalid key it is a guess of a key.
            await self._admission.known_keys.require(key, exchange.reply.request_id)
            raise
        if exchange.memory is not None:
            exchange.memory.shrink()
        return request

    async def _stream(
        self, exchange: Exchange, key: str, renderer: StreamRenderer, messages: _Messages
    ) -> None:
        request_id = exchange.reply.request_id
        with EventStream(exchange.reply, self._config, self._surface.framing) as stream:
            try:
                with self._calls.track(messages, request_id, key):
                    last = await _relay(messages, renderer, stream)
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
                _log.exception("stream.failed", extra={"request_id": request_id})
                last = renderer.error(internal(request_id))
            await stream.end(last)


async def _relay(messages: _Messages, renderer: StreamRenderer, stream: EventStream) -> bytes:
    """Write the events of each message when it arrives.

    Return the events of the last message unsent: they go out in one write with the end.
    """
    last = b""
    async for message in messages:
        if not renderer.started:
            stream.begin(await _first_headers(messages, message))
        events = renderer.render(message.chunks)
        if renderer.finished:
            last = events
        elif events and stream.write(events):
            await stream.drained()
    if not renderer.finished:
        raise RuntimeError("the service ended a stream with OK, but without `finished`")
    return last


async def _first_headers(
    messages: _Messages, first: chat.StreamChatCompletionResponse
) -> dict[str, str]:
    notes = first.chunks[0].started.notes if first.chunks else ()
    return response_headers(await messages.initial_metadata()) | notes_header(notes)
