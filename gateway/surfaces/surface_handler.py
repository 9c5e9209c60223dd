"""Surface handler: base of the handlers of all requests with a prompt.

Such a request comes over the fast path or aiohttp's router, is admitted by its key and the size of
its body, and is decoded by its surface.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Generic, TypeAlias, TypeVar

from aiohttp import web
from msgspec.structs import replace
from multidict import MultiMapping

from gateway.backend import Backend
from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.body import expect_continue
from gateway.http.body_admission import BodyAdmission
from gateway.http.call_options import HeaderOptions, SentHeaders
from gateway.http.credentials import unchecked_key
from gateway.http.endpoint import Endpoint
from gateway.http.exchange import AlreadySentResponse, Exchange, receive_body, routed_exchange
from gateway.http.known_keys import TTL_S
from gateway.http.middleware import BEGUN
from gateway.surfaces.base import InboundApi, Route
from gateway.telemetry.request_observer import TRACE_CONTEXT
from services.common.off_loop import OFF_LOOP_BYTES, off_loop
from services.domain.call_options import CallOptions

MODEL_LOGGED_MAX = 128
"""Characters of a model's name in the access log."""

T = TypeVar("T")
A = TypeVar("A", bound=InboundApi)

Decode: TypeAlias = Callable[[bytes, MultiMapping[str], EdgeConfig], T]


class SurfaceHandler(ABC, Generic[A]):
    """Handler of some requests of one surface, which is one inbound API."""

    def __init__(
        self,
        surface: A,
        backend: Backend,
        config: EdgeConfig,
        admission: BodyAdmission,
    ) -> None:
        self.surface = surface
        self.backend = backend
        self.config = config
        self.admission = admission

    @property
    @abstractmethod
    def served(self) -> Sequence[Route]:
        """The routes of these requests."""

    @abstractmethod
    async def handle(self, exchange: Exchange) -> Awaitable[None] | None:
        """Answer one request, but for the stream that is returned, which is awaited next.

        Raises ApiError: it failed before anything was sent. Raises ConnectionError: the client is
        gone.
        """

    def endpoints(self) -> Iterator[Endpoint]:
        """Yield the routes for the fast path."""
        for method, path in self.served:
            yield Endpoint(
                method=method,
                route=path,
                path=path,
                credential_headers=self.surface.credential_headers,
                handle=self.handle,
                render_error=self.surface.render_error,
            )

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the routes for aiohttp's router."""
        return [
            web.route(method, path, self.handle_routed, expect_handler=expect_continue)
            for method, path in self.served
        ]

    async def handle_routed(self, request: web.Request) -> web.StreamResponse:
        """Answer a request that aiohttp has routed."""
        if error := self.admission.admit_body():
            raise error
        caller = unchecked_key(request.headers, self.surface.credential_headers)
        exchange = routed_exchange(request, caller)
        try:
            self.read_options(exchange.sent)  # Before the body: they may refuse the request.
            await receive_body(exchange, request, self.config, self.admission)
            stream = await self.handle(exchange)
            if stream is not None:
                await stream
        finally:
            request[BEGUN] = exchange.begun_at
            if exchange.memory is not None:
                exchange.memory.release()
        return AlreadySentResponse(exchange)

    def read_options(self, sent: SentHeaders) -> HeaderOptions:
        """Return the options in the headers of a request, and keep them with the headers.

        Raises ApiError: one is malformed, or there is no key.
        """
        headers, surface = sent.headers, self.surface
        options = HeaderOptions.read(headers, self.config, surface.credential_headers, surface.name)
        surface.check_headers(headers)
        sent.options = options
        return options

    def remember_key(self, sent: SentHeaders) -> None:
        """Remember that the service has accepted the key of a request with these headers."""
        self.admission.known_keys.add(sent.caller)
        sent.key_fresh_until = time.perf_counter() + TTL_S / 2

    async def read(
        self,
        exchange: Exchange,
        decode: Decode[T],
        decode_large: Decode[Awaitable[T]] | None = None,
        loop_bytes_max: int = OFF_LOOP_BYTES,
    ) -> tuple[T, HeaderOptions, CallOptions]:
        """Return the request that `decode` makes of the body, and the options of its call.

        A body of more than `loop_bytes_max` is decoded by `decode_large`, or else in a thread.
        Raises ApiError: the body did not arrive, or is no such request; or an option is malformed.
        """
        sent = exchange.sent
        options = sent.options or self.read_options(sent)
        body, exchange.arrived = exchange.arrived, b""
        if isinstance(body, ApiError):
            raise body
        size, headers, config = len(body), sent.headers, self.config
        try:
            if size <= loop_bytes_max:
                request = decode(body, headers, config)
            elif decode_large is not None:
                request = await decode_large(body, headers, config)
            else:
                request = await off_loop(size, decode, body, headers, config)
        except ApiError:
            # Decoding costs time. With an invalid key the failure counts for the throttle.
            await self.admission.known_keys.require(sent.caller, exchange.request_id)
            raise
        if exchange.memory is not None:
            exchange.memory.shrink()
        call = replace(
            options.call,
            request_id=exchange.request_id,
            request_bytes=size,
            trace_context=TRACE_CONTEXT.get() or options.call.trace_context,
        )
        return request, options, call
