"""Bindings as routes of aiohttp.

aiohttp's own patterns are not those of google.api.http: they know no `**`, and see the path
decoded, where `%2F` and `/` are one. So each binding is a resource of its own kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import grpc
from aiohttp import web
from aiohttp.web_urldispatcher import UrlMappingMatchInfo
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from yarl import URL

from gateway.config import EdgeConfig
from gateway.http.body import read_body
from gateway.http.credentials import api_key
from gateway.http.middleware import OUTCOME, REQUEST_ID
from gateway.rpc.call_metadata import deadline_s, metadata, response_headers
from gateway.rpc.status_mapping import from_rpc
from gateway.transcoding import response_encoder
from gateway.transcoding.bindings import ANY_VERB, Binding, bindings
from gateway.transcoding.request_builder import build

Pairs = tuple[tuple[str, str], ...]
Metadata = Callable[[web.Request], Pairs]


def of_caller(request: web.Request) -> Pairs:
    """The metadata of a request that bears a key of ours. ApiError where it does not."""
    return metadata(request.headers, api_key(request.headers), request[REQUEST_ID])


def routes(
    services: Iterable[ServiceDescriptor],
    channel: grpc.aio.Channel,
    config: EdgeConfig,
    *,
    metadata_of: Metadata = of_caller,
) -> list[web.AbstractRouteDef]:
    """What `app.add_routes` takes, to serve every annotated method of the services.

    The application needs `gateway.http.middleware.border`, which turns errors into answers.
    `metadata_of` says what the service is told beside the request, before the body is read.

    Raises:
        ValueError: an annotation says what cannot be. Its method is named.
    """
    return [
        TemplateRoute(binding, Transcoder(binding, channel, config, metadata_of).handle)
        for binding in bindings(services)
    ]


class Transcoder:
    """The handler of one binding."""

    def __init__(
        self, binding: Binding, channel: grpc.aio.Channel, config: EdgeConfig, metadata_of: Metadata
    ) -> None:
        method = binding.method
        streams = method.server_streaming
        make: Any = channel.unary_stream if streams else channel.unary_unary
        self._call = make(
            binding.path,
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        self._answer = self._stream if streams else self._whole
        self._binding = binding
        self._config = config
        self._metadata_of = metadata_of

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one request. Whatever ends it, the call behind it ends too."""
        pairs = self._metadata_of(request)
        request[OUTCOME]["rpc"] = self._binding.method.full_name
        # Where nothing was sent, it does not matter what kind of nothing it is said to be.
        reads = self._binding.takes_body and request.can_read_body
        body = await read_body(request, self._config) if reads else b""
        message = build(self._binding, request.match_info, request.rel_url.raw_query_string, body)
        whole = not self._binding.method.server_streaming
        timeout = deadline_s(request.headers, self._config, whole=whole)
        call = self._call(message, metadata=pairs, timeout=timeout)
        try:
            return await self._answer(request, call)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, request[REQUEST_ID]) from None
        finally:
            call.cancel()

    async def _whole(self, _: web.Request, call: grpc.aio.UnaryUnaryCall[Any, Any]) -> web.Response:
        message: Message = await call
        return web.Response(
            body=response_encoder.whole(self._binding, message),
            headers=response_headers(await call.initial_metadata()),
            content_type=response_encoder.WHOLE,
        )

    async def _stream(
        self, request: web.Request, call: grpc.aio.UnaryStreamCall[Any, Any]
    ) -> web.StreamResponse:
        """Sends a line for each message. Until the first, a failure has its own status."""
        message: Any = await call.read()
        response = web.StreamResponse(headers=response_headers(await call.initial_metadata()))
        response.content_type = response_encoder.LINES
        await response.prepare(request)
        try:
            while message is not grpc.aio.EOF:
                await self._send(request, response, response_encoder.line(self._binding, message))
                message = await call.read()
        except grpc.aio.AioRpcError as error:
            failure = from_rpc(error, request[REQUEST_ID])
            request[OUTCOME].update(status=failure.status, code=failure.code)
            await self._send(request, response, response_encoder.last_line(failure))
        await response.write_eof()
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, line: bytes) -> None:
        try:
            async with asyncio.timeout(self._config.write_timeout_s):
                await response.write(line)
        except TimeoutError:
            # It will not read the rest either: closing in order would wait for it for ever.
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionAbortedError("the client does not read") from None


class TemplateRoute(web.AbstractRouteDef):
    """Adds one binding to a router."""

    def __init__(self, binding: Binding, handler: Callable[..., Any]) -> None:
        self.binding = binding
        self._handler = handler

    def register(self, router: web.UrlDispatcher) -> list[web.AbstractRoute]:
        """Adds it, after those that are there."""
        resource = TemplateResource(self.binding, self._handler)
        router.register_resource(resource)
        return list(resource)


class TemplateResource(web.AbstractResource):
    """A path template with one verb."""

    def __init__(self, binding: Binding, handler: Callable[..., Any]) -> None:
        super().__init__()
        self._binding = binding
        self._route = web.ResourceRoute(binding.verb, handler, self, expect_handler=_say_nothing)

    @property
    def canonical(self) -> str:
        """Any path: so aiohttp asks its own routes first, and templates in our order."""
        return "/{path}"

    @property
    def http_route(self) -> str:
        """The path as it is annotated, for metrics and traces."""
        return self._binding.template.source

    async def resolve(self, request: web.Request) -> tuple[UrlMappingMatchInfo | None, set[str]]:
        """The variables, still encoded, and the verb that the path takes."""
        found = self._binding.template.match(request.rel_url.raw_path)
        if found is None:
            return None, set()
        verb = self._binding.verb
        if verb not in {ANY_VERB, request.method}:
            return None, {verb}
        return UrlMappingMatchInfo(dict(found), self._route), {verb}

    def raw_match(self, path: str) -> bool:
        """Whether this is the template's own text."""
        return path == self._binding.template.source

    def get_info(self) -> Any:
        """What aiohttp lists about a resource."""
        return {"formatter": self._binding.template.source}

    def add_prefix(self, prefix: str) -> NoReturn:
        """Refused: the contract says what the path is."""
        raise NotImplementedError(prefix)

    def freeze(self) -> None:
        """There is nothing to freeze."""

    def url_for(self, **_: str) -> URL:
        """Refused: nobody asks."""
        raise NotImplementedError(self._binding.template.source)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter((self._route,))


async def _say_nothing(_: web.Request) -> None:
    """Leaves `Expect: 100-continue` to whoever reads the body."""
