"""Spans of requests: one server span for each, between the client's span and the service's.

Attributes follow OpenTelemetry's conventions for HTTP servers
(https://opentelemetry.io/docs/specs/semconv/http/http-spans/), without those of the query, of
headers and of the client's address. Needs the extra `otel`.
"""

from __future__ import annotations

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

from gateway.telemetry.request_observer import CLIENT_GONE

_PROPAGATOR = TraceContextTextMapPropagator()
# A method that is not in HTTP's registry must not name a span.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_HEADERS = ("traceparent", "tracestate")


class RequestTracer:
    """Makes a span for each request of one edge."""

    def __init__(self, tracer: Tracer, scheme: str) -> None:
        """`scheme` is the listener's: `http` or `https`."""
        self._tracer = tracer
        self._scheme = scheme

    def begin(self, method: str, route: str, path: str, headers: MultiMapping[str]) -> RequestSpan:
        """Begin the span of a request, as a child of the client's span in `traceparent`."""
        method = method if method in _METHODS else "_OTHER"
        parent = {name: value for name in _HEADERS if (value := headers.get(name)) is not None}
        span = self._tracer.start_span(
            f"{method} {route}".strip(),
            context=_PROPAGATOR.extract(parent, context=Context()),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method,
                "url.path": path,
                "url.scheme": self._scheme,
                **({"http.route": route} if route else {}),
            },
        )
        return RequestSpan(span)


class RequestSpan:
    """The span of one request."""

    __slots__ = ("_span", "context", "trace_id")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.context: dict[str, str] = {}
        _PROPAGATOR.inject(self.context, set_span_in_context(span, Context()))
        """Metadata that makes the service's span a child of this one."""
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        """32 hexadecimal digits."""

    def end(self, status: int, error: str, request_id: str) -> None:
        """End the span; `status` is 0 without an answer. Only the gateway's faults are errors."""
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
