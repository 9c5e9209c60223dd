"""Who may call what over gRPC, by the names in the callers' certificates.

The authority that a listener trusts says who somebody is; the table `client_certificates` of the
configuration says what that one may call. Without a table, whoever the authority vouches
for may call everything.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

import grpc
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.config.client_certificates import EVERYTHING
from services.errors import Failure
from services.rpc.failure_border import Context, Handler

log = logging.getLogger(__name__)

Table = Mapping[str, Iterable[str]]
"""Names by what they may call: `package.Service/Method`, `package.Service/*` or `*`."""

HEALTH = "grpc.health.v1.Health/"
"""What everybody may ask who may call anything at all."""

WATCH = f"{HEALTH}Watch"
"""What everybody may ask whom the authority vouches for. Edges call no service that does not say
how it is (`services.rpc.health_service`): without it they would not learn that they may not
call."""

# How gRPC's core calls them: https://grpc.github.io/grpc/core/grpc__security__constants_8h.html
_NAMES = ("peer_dns", "peer_uri")
_NAMES_LOGGED_MAX = 8


class ClientAuthorizer(grpc.aio.ServerInterceptor):
    """Lets those in whose certificate has a name that may call the method.

    Stands behind the border, which turns the refusal into a status. Names are compared
    whole: those of DNS, and URIs such as `spiffe://cluster.local/ns/web/sa/shop`.
    """

    def __init__(self, table: Table) -> None:
        self.replace(table)

    def replace(self, table: Table) -> None:
        """Decides by this table from the next call on, whichever connection it comes on."""
        self._table = {pattern: frozenset(names) for pattern, names in table.items()}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The method's handler, behind the check."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.removeprefix("/")
        if method == WATCH:
            return handler
        return handler and guarded(handler, lambda context: self._check(method, context))

    def _check(self, method: str, context: Context) -> None:
        if not self._table:
            return
        names = _names(context)
        if any(not names.isdisjoint(allowed) for allowed in self._allowing(method)):
            return
        log.warning(
            "caller.refused",
            extra={"method": method, "names": sorted(names)[:_NAMES_LOGGED_MAX]},
        )
        message = f"No name in the caller's certificate may call {method}."
        raise Failure(reasons.ERROR_REASON_PERMISSION_DENIED, message)

    def _allowing(self, method: str) -> Iterator[frozenset[str]]:
        """The names that may call the method, row by row."""
        if method.startswith(HEALTH):
            return iter(self._table.values())
        service, _, _ = method.partition("/")
        patterns = (method, f"{service}/*", EVERYTHING)
        return (self._table[pattern] for pattern in patterns if pattern in self._table)


def guarded(handler: Handler, check: Callable[[Context], None]) -> Handler:
    """The same handler, which is asked only if `check` does not raise a `Failure`.

    For calls of one request; `check` runs before the request is looked at.
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
    return _guarded_dialogue(handler, check)


def _guarded_dialogue(handler: Handler, check: Callable[[Context], None]) -> Handler:
    """Only reflection has requests that are a stream; the border lets it pass as it is."""
    inner: Any = handler.stream_stream

    async def dialogue(requests: object, context: Context) -> AsyncIterator[object]:
        try:
            check(context)
        except Failure as failure:
            await context.abort(failure.code, failure.message)
        async for message in inner(requests, context):
            yield message

    return grpc.stream_stream_rpc_method_handler(
        dialogue, handler.request_deserializer, handler.response_serializer
    )


def _names(context: Context) -> frozenset[str]:
    """Those of the caller's certificate, which the handshake has verified."""
    identity = context.auth_context()
    return frozenset(
        name.decode("utf-8", "replace") for kind in _NAMES for name in identity.get(kind, ())
    )
