"""POST /v1/chat/completions: decode, call, render.

Whatever ends a request, the call behind it ends too: a client that leaves cancels it.
"""

from __future__ import annotations

import logging
from typing import TypeAlias

import grpc
from aiohttp import web
from multidict import MultiMapping
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub

from gateway.config import EdgeConfig
from gateway.errors import ApiError, internal, invalid
from gateway.http.credentials import api_key, unchecked_key
from gateway.http.exchange import Exchange, Routed, Sent
from gateway.http.middleware import BEGUN
from gateway.overload.admission_check import AdmissionCheck
from gateway.rpc.in_flight_calls import InFlightCalls
from gateway.rpc.metadata import (
    TIMEOUT_HEADER,
    cost_header,
    deadline_s,
    metadata,
    notes_header,
    parameter_policy,
    response_headers,
)
from gateway.surfaces.event_stream import EventStream
from gateway.surfaces.openai_chat.decode import ChatRequest, decode
from gateway.surfaces.openai_chat.render import ChunkRenderer
from gateway.surfaces.openai_chat.render_whole import render_completion

_SOONER_S = 0.01
"""gRPC tells the service deadlines rounded up to about three digits. A little less than a round
number arrives as that number, which the service is told, too
(`services.rpc.failure_border.waited_s`)."""

_Messages: TypeAlias = (
    "grpc.aio.UnaryStreamCall[chat.StreamChatCompletionRequest, chat.StreamChatCompletionResponse]"
)

_log = logging.getLogger(__name__)

# Public names that end so promise the thinking as a part of the content.
_THINKING_SUFFIX = "-thinking"

# Who asks for JSON parses the content, as `.parse()` of the SDKs does: it must be nothing else.
_JSON_FORMATS = frozenset(
    {chat.RESPONSE_FORMAT_TYPE_JSON_OBJECT, chat.RESPONSE_FORMAT_TYPE_JSON_SCHEMA}
)


class Completions:
    """The handler of the route."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        calls: InFlightCalls,
        config: EdgeConfig,
        admission: AdmissionCheck,
    ) -> None:
        """`admission` decides whether a call is made."""
        self._admission = admission
        self._stub = ChatCompletionServiceStub(channel)
        self._calls = calls
        self._config = config

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Answers a request that aiohttp has routed."""
        if error := self._admission.admit_body():
            raise error
        exchange = Routed(request, self._config, self._admission)
        try:
            await self.answer(exchange)
        finally:
            request[BEGUN] = exchange.reply.begun_at
        return Sent(exchange.reply)

    async def answer(self, exchange: Exchange) -> None:
        """Answers one request, whole or as a stream."""
        request_id, headers = exchange.reply.request_id, exchange.headers
        pairs = metadata(headers, api_key(headers), request_id)
        policy = parameter_policy(headers)
        text_only = _wants_text(headers)
        asked = decode(await exchange.body(), self._config)
        wanted = asked.request
        exchange.outcome.update(model=wanted.spec.model[:128], stream=asked.stream)
        limit_s = deadline_s(headers, self._config, whole=not asked.stream)
        pairs = (*pairs, (TIMEOUT_HEADER, str(limit_s)))
        timeout = limit_s - min(_SOONER_S, limit_s / 100)
        wanted.parameter_policy = policy
        if isinstance(wanted, chat.StreamChatCompletionRequest):
            messages = self._stub.StreamChatCompletion(wanted, metadata=pairs, timeout=timeout)
            await self._stream(exchange, asked, messages)
            return
        call = self._stub.CreateChatCompletion(wanted, metadata=pairs, timeout=timeout)
        with self._calls.track(call, request_id, unchecked_key(headers)):
            answer = await call
            told = response_headers(await call.initial_metadata())
        thinking_parts = _promises_thinking(asked.spec) and not text_only
        body = render_completion(
            answer,
            thinking_parts=thinking_parts,
            include_cost=asked.include_cost,
            functions=asked.functions,
        )
        told |= notes_header(answer.notes) | cost_header(answer)
        if exchange.reply.send(200, body, told):
            await exchange.reply.drained()

    async def _stream(self, exchange: Exchange, asked: ChatRequest, messages: _Messages) -> None:
        request_id = exchange.reply.request_id
        renderer = ChunkRenderer(
            include_usage=asked.include_usage,
            include_cost=asked.include_cost,
            functions=asked.functions,
        )
        with EventStream(exchange.reply, self._config) as stream:
            try:
                with self._calls.track(messages, request_id, unchecked_key(exchange.headers)):
                    last = await _relay(messages, renderer, stream)
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
                # The status is out, and the border could not tell the client any more.
                _log.exception("stream.failed", extra={"request_id": request_id})
                last = renderer.error(internal(request_id))
            await stream.end(last)


async def _relay(messages: _Messages, renderer: ChunkRenderer, stream: EventStream) -> bytes:
    """Writes the events of `messages` as they come. Returns the last, to go with the end."""
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


def _promises_thinking(spec: chat.ChatCompletionSpec) -> bool:
    """Whether a whole answer's content is an array of thinking and text."""
    by_name = spec.model.endswith(_THINKING_SUFFIX)
    return by_name and spec.response_format.type not in _JSON_FORMATS


def _wants_text(headers: MultiMapping[str]) -> bool:
    """Whether content must be a string, since typed code of the SDKs takes nothing else."""
    wanted = headers.get("x-pomogator-content")
    if wanted not in {None, "text"}:
        raise invalid("x-pomogator-content", "x-pomogator-content must be `text`.")
    return wanted is not None
