"""Authorization of gRPC clients by the names in their certificates.

The authority that a listener trusts says who a client is; the table `client_certificates` of the
configuration says what that client may call. Without a table, every client with a certificate of
the authority may call everything.
"""

from __future__ import annotations

import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any

import grpc

from services.common.call_names import CHAT_SERVICE
from services.config.client_certificates import EVERYTHING
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc.call_context import Context, Continuation, Handler

log = logging.getLogger(__name__)

Table = Mapping[str, Iterable[str]]
"""Names by what they may call: `package.Service/Method`, `package.Service/*` or `*`."""

HEALTH = "grpc.health.v1.Health/"
"""The methods that every name of the table may call."""

WATCH = f"{HEALTH}Watch"
"""The method that every client with a certificate of the authority may call. Edges send no call to
a service that does not report its health (`services.rpc.health_service`): without this method they
would wait, and never learn that they may not call."""

RELAY = "pomogator.relay.v1.RelayService/Relay"
"""The method that carries calls of `CHAT_METHODS`: a client that may call these may call it."""

CHAT_METHODS = (f"{CHAT_SERVICE}/CreateChatCompletion", f"{CHAT_SERVICE}/StreamChatCompletion")

# The names of these properties in gRPC's core:
# https://grpc.github.io/grpc/core/grpc__security__constants_8h.html
_NAMES = ("peer_dns", "peer_uri")
_NAMES_LOGGED_MAX = 8


class ClientAuthorizer(grpc.aio.ServerInterceptor):
    """Refuses calls of clients whose certificate has no name that may call the method.

    Stands behind the border, which turns the refusal into a status. Names are compared
    whole: DNS names, and URIs such as `spiffe://cluster.local/ns/web/sa/shop`.
    """

    def __init__(self, table: Callable[[], Table]) -> None:
        """`table` returns the current one. It decides each call, on existing connections, too."""
        self._table = table

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the method's handler, behind the check."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.removeprefix("/")
        if method == WATCH:
            return handler
        return handler and checked_handler(handler, lambda context: self._check(method, context))

    def _check(self, method: str, context: Context) -> None:
        table = self._table()
        if not table:
            return
        names = certificate_names(context)
        methods = CHAT_METHODS if method == RELAY else (method,)
        if all(_may_call(names, table, each) for each in methods):
            return
        log.warning(
            "client.refused", extra={"method": method, "names": sorted(names)[:_NAMES_LOGGED_MAX]}
        )
        message = f"No name in the caller's certificate may call {method}."
        raise Failure(ErrorReason.PERMISSION_DENIED, message)


def checked_handler(handler: Handler, check: Callable[[Context], None]) -> Handler:
    """Return a handler that runs `check` before it handles the request.

    `check` raises `Failure` to refuse the call. For methods with one request message, and for
    reflection.
    """
    inner: Any = handler.unary_unary or handler.unary_stream
    if handler.unary_unary is not None:

        async def whole(request: object, context: Context) -> object:
            check(context)
            answer: object = await inner(request, context)
            return answer

        return grpc.unary_unary_rpc_method_handler(
            whole, handler.request_deserializer, handler.response_serializer
        )
    if handler.unary_stream is not None:

        def stream(request: object, context: Context) -> AsyncIterator[object]:
            check(context)
            messages: AsyncIterator[object] = inner(request, context)
            return messages

        return grpc.unary_stream_rpc_method_handler(
            stream, handler.request_deserializer, handler.response_serializer
        )
    return _checked_dialogue(handler, check)


def _checked_dialogue(handler: Handler, check: Callable[[Context], None]) -> Handler:
    """The same for a stream of requests, each of which is checked: relays carry many calls."""
    inner: Any = handler.stream_stream

    async def checked(
        requests: AsyncIterator[object], context: Context
    ) -> AsyncGenerator[object, None]:
        async for request in requests:
            check(context)
            yield request

    def dialogue(requests: AsyncIterator[object], context: Context) -> AsyncIterator[object]:
        check(context)
        messages: AsyncIterator[object] = inner(checked(requests, context), context)
        return messages

    return grpc.stream_stream_rpc_method_handler(
        dialogue, handler.request_deserializer, handler.response_serializer
    )


def certificate_names(context: Context) -> frozenset[str]:
    """Return the names in the client's certificate, which the handshake has verified."""
    identity = context.auth_context()
    return frozenset(
        name.decode("utf-8", "replace") for kind in _NAMES for name in identity.get(kind, ())
    )


def _may_call(names: frozenset[str], table: Table, method: str) -> bool:
    return any(not names.isdisjoint(allowed) for allowed in _allowing(table, method))


def _allowing(table: Table, method: str) -> Iterator[Iterable[str]]:
    """The names that may call the method, row by row."""
    if method.startswith(HEALTH):
        return iter(table.values())
    service, _, _ = method.partition("/")
    patterns = (method, f"{service}/*", EVERYTHING)
    return (table[pattern] for pattern in patterns if pattern in table)
