"""POST /v1/chat/completions: decode, call, render.

Whatever ends a request, the call behind it ends too: a client that leaves cancels it.
"""

from __future__ import annotations

import logging
from typing import TypeAlias

import grpc
from aiohttp import web
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub

from gateway.body import read_body
from gateway.config import EdgeConfig
from gateway.decode import ChatRequest, decode
from gateway.errors import ApiError, internal, invalid
from gateway.metadata import (
    bearer,
    deadline_s,
    metadata,
    notes_header,
    parameter_policy,
    response_headers,
)
from gateway.middleware import OUTCOME, REQUEST_ID
from gateway.render import ChunkRenderer
from gateway.render_whole import render_completion
from gateway.sse import EventStream
from gateway.statuses import from_rpc

_WholeCall: TypeAlias = "grpc.aio.UnaryUnaryCall[chat.CreateChatCompletionRequest, chat.CreateChatCompletionResponse]"  # noqa: E501
_StreamCall: TypeAlias = "grpc.aio.UnaryStreamCall[chat.StreamChatCompletionRequest, chat.StreamChatCompletionResponse]"  # noqa: E501

_log = logging.getLogger("gateway")

# Public names that end so promise the thinking as a part of the content.
_THINKING_SUFFIX = "-thinking"


class Completions:
    """The handler of the route."""

    def __init__(self, channel: grpc.aio.Channel, config: EdgeConfig) -> None:
        self._stub = ChatCompletionServiceStub(channel)
        self._config = config

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Answers one request, whole or as a stream."""
        key = bearer(request)
        policy = parameter_policy(request.headers)
        text_only = _wants_text(request)
        asked = decode(await read_body(request, self._config), self._config)
        request[OUTCOME].update(model=asked.spec.model[:128], stream=asked.stream)
        pairs = metadata(request, key, request[REQUEST_ID])
        timeout = deadline_s(request.headers, self._config, whole=not asked.stream)
        if asked.stream:
            spoken = chat.StreamChatCompletionRequest(spec=asked.spec, parameter_policy=policy)
            stream = self._stub.StreamChatCompletion(spoken, metadata=pairs, timeout=timeout)
            return await self._stream(request, asked, stream)
        whole = chat.CreateChatCompletionRequest(spec=asked.spec, parameter_policy=policy)
        call = self._stub.CreateChatCompletion(whole, metadata=pairs, timeout=timeout)
        return await _whole(request, asked, call, text_only=text_only)

    async def _stream(
        self, request: web.Request, asked: ChatRequest, call: _StreamCall
    ) -> web.StreamResponse:
        renderer = ChunkRenderer(include_usage=asked.include_usage, functions=asked.functions)
        try:
            async with EventStream(request, self._config) as stream:
                try:
                    last = await _relay(call, renderer, stream, request[REQUEST_ID])
                except ApiError as error:
                    if not stream.begun:
                        raise
                    request[OUTCOME].update(code=error.code)
                    last = renderer.error(error)
                await stream.end(last)
                return stream.response
        finally:
            call.cancel()


async def _whole(
    request: web.Request, asked: ChatRequest, call: _WholeCall, *, text_only: bool
) -> web.Response:
    try:
        answer = await call
        headers = response_headers(await call.initial_metadata())
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, request[REQUEST_ID]) from None
    finally:
        call.cancel()
    body = render_completion(
        answer,
        thinking_parts=asked.spec.model.endswith(_THINKING_SUFFIX) and not text_only,
        functions=asked.functions,
    )
    return web.Response(
        body=body,
        content_type="application/json",
        headers=headers | notes_header(answer.notes),
    )


async def _relay(
    call: _StreamCall, renderer: ChunkRenderer, stream: EventStream, request_id: str
) -> bytes:
    """Writes the events of `call` as they come. Returns the last ones, to go with the end.

    Raises:
        ApiError: the call failed. Whether the status is still open, `stream` knows.
    """
    last = b""
    try:
        async for message in call:
            if not renderer.started:
                await stream.begin(await _first_headers(call, message))
            events = renderer.render(message.chunks)
            if renderer.finished:
                last = events
            elif events:
                await stream.write(events)
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, request_id) from None
    except ConnectionError:
        raise  # The client is gone.
    except Exception:  # The status is out: the border could not tell the client any more.
        _log.exception("stream.failed %s", request_id)
        raise internal(request_id) from None
    if not renderer.finished:
        _log.error("stream.unfinished %s", request_id)
        raise internal(request_id)
    return last


async def _first_headers(
    call: _StreamCall, message: chat.StreamChatCompletionResponse
) -> dict[str, str]:
    notes = message.chunks[0].started.notes if message.chunks else ()
    return response_headers(await call.initial_metadata()) | notes_header(notes)


def _wants_text(request: web.Request) -> bool:
    """Whether content must be a string, since typed code of the SDKs takes nothing else."""
    wanted = request.headers.get("x-pomogator-content")
    if wanted not in {None, "text"}:
        raise invalid("x-pomogator-content", "x-pomogator-content must be `text`.")
    return wanted is not None
