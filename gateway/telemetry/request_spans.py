"""The edge's spans: one for each request, between its client's and the service's.

By OpenTelemetry's conventions for HTTP servers
(https://opentelemetry.io/docs/specs/semconv/http/http-spans/), without what they would have of a
query, of headers or of a client's address. Needs the extra `otel`.
"""

from __future__ import annotations

from collections.abc import Sequence

from multidict import MultiMapping
from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
# What clients make up is no name for a span.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_HEADERS = ("traceparent", "tracestate")

CLIENT_GONE = "client_gone"
"""The `error.type` of a request whose client left: nobody's fault here."""


class EdgeTraces:
    """Makes the spans."""

    def __init__(self, tracer: Tracer, scheme: str) -> None:
        self._tracer = tracer
        self._scheme = scheme

    def begin(self, method: str, route: str, path: str, headers: MultiMapping[str]) -> EdgeSpan:
        """A request came in. It goes on from what its client says in `traceparent`."""
        method = method if method in _METHODS else "_OTHER"
        given = {name: value for name in _HEADERS if (value := headers.get(name)) is not None}
        span = self._tracer.start_span(
            f"{method} {route}".strip(),
            context=_PROPAGATOR.extract(given, context=Context()),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method,
                "url.path": path,
                "url.scheme": self._scheme,
                **({"http.route": route} if route else {}),
            },
        )
        return EdgeSpan(span)


class EdgeSpan:
    """The span of one request."""

    __slots__ = ("_span", "context", "trace_id")

    def __init__(self, span: Span) -> None:
        self._span = span
        told: dict[str, str] = {}
        _PROPAGATOR.inject(told, set_span_in_context(span, Context()))
        self.context: Sequence[tuple[str, str]] = tuple(told.items())
        """What the service is told, so that its span is a child of this one."""
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        """32 hexadecimal digits."""

    def end(self, status: int, error: str, request_id: str) -> None:
        """It was answered, or not (`status` 0). Only what is our fault is an error."""
        span = self._span
        if span.is_recording():
            span.set_attribute("pomogator.request_id", request_id)
            if status:
                span.set_attribute("http.response.status_code", status)
            if error:
                span.set_attribute("error.type", error)
            if status >= 500 or (error and status == 200 and error != CLIENT_GONE):
                span.set_status(StatusCode.ERROR)
        span.end()
