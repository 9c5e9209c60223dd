"""Transcoder: the HTTP handler of one method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc
from aiohttp import web
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.body import read_body
from gateway.http.call_options import deadline_s
from gateway.http.middleware import OUTCOME, REQUEST_ID
from gateway.rpc.call_metadata import response_headers
from gateway.rpc.status_mapping import to_api_error
from gateway.transcoding import response_encoder
from gateway.transcoding.bindings import Binding
from gateway.transcoding.request_builder import build
from gateway.transcoding.text_streams import TEXT_STREAMS
from services.common.off_loop import off_loop

CallMetadata: TypeAlias = Callable[[web.Request], tuple[tuple[str, str], ...]]
"""Returns the metadata of the call for a request. ApiError refuses the request."""


class Transcoder:
    """Turns a request into a call, and its responses into JSON."""

    def __init__(
        self,
        binding: Binding,
        channel: grpc.aio.Channel,
        config: EdgeConfig,
        call_metadata: CallMetadata,
    ) -> None:
        method = binding.method
        streams = method.server_streaming
        self._text = TEXT_STREAMS.get(method.full_name)
        make: Any = channel.unary_stream if streams else channel.unary_unary
        self._call = make(
            binding.path,
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        self._answer = self._stream if streams else self._whole
        self._binding = binding
        self._config = config
        self._call_metadata = call_metadata

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request. The call ends with the request, however that ends."""
        pairs = self._call_metadata(request)
        request[OUTCOME]["rpc"] = self._binding.method.full_name
        # Without a body, its content type does not matter.
        reads = self._binding.takes_body and request.can_read_body
        body = await read_body(request, self._config) if reads else b""
        query = request.rel_url.raw_query_string
        message = await off_loop(len(body), build, self._binding, request.match_info, query, body)
        whole = not self._binding.method.server_streaming
        timeout = deadline_s(request.headers, self._config, whole=whole)
        call = self._call(message, metadata=pairs, timeout=timeout)
        try:
            return await self._answer(request, call)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error, request) from None
        finally:
            call.cancel()

    async def _whole(self, _: web.Request, call: grpc.aio.UnaryUnaryCall[Any, Any]) -> web.Response:
        message: Message = await call
        return web.Response(
            body=response_encoder.body(self._binding, message),
            headers=response_headers(await call.initial_metadata()),
            content_type=response_encoder.JSON,
        )

    async def _stream(
        self, request: web.Request, call: grpc.aio.UnaryStreamCall[Any, Any]
    ) -> web.StreamResponse:
        """Send a line for each message. A failure before the first one has its own status."""
        message: Any = await call.read()
        response = web.StreamResponse(headers=response_headers(await call.initial_metadata()))
        if self._text is None or message is grpc.aio.EOF:
            response.content_type = response_encoder.JSON_LINES
        else:
            response.content_type = self._text(message).mime_type
        await response.prepare(request)
        try:
            while message is not grpc.aio.EOF:
                await response.write(self._piece(message))
                message = await call.read()
        except grpc.aio.AioRpcError as error:
            failure = self._failure(error, request)
            request[OUTCOME].update(status=failure.status, code=failure.code)
            if self._text is not None:
                # A text has no place for an error. Without an orderly end it is not complete.
                raise ConnectionAbortedError("the stream failed") from None
            await response.write(response_encoder.error_line(failure))
        await response.write_eof()
        return response

    def _piece(self, message: Message) -> bytes:
        """Return the bytes of a message of a stream."""
        if self._text is not None:
            return self._text(message).data
        return response_encoder.line(self._binding, message)

    def _failure(self, error: grpc.aio.AioRpcError, request: web.Request) -> ApiError:
        """Return the error, whose `param` is a path in the JSON of the request."""
        return to_api_error(error, request[REQUEST_ID], param_is_path=True)
