"""Request observer: metrics of each request and, if tracing is on, its span.

    observed = observer.begin(method, route, path, headers, outcome)
    …
    observer.end(observed, request_id, status, started, begun_at)

`TRACE_CONTEXT`, a context variable of the request's task, holds the context of the span for
`gateway.http.call_options`, from where it reaches the service.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from aiohttp import web
from multidict import MultiMapping

from gateway.telemetry.edge_metrics import EdgeMetrics
from gateway.telemetry.request_metrics import (
    CLIENT_CLOSED,
    CLIENT_GONE,
    ObservedRequest,
    RequestMetrics,
)

if TYPE_CHECKING:
    from gateway.telemetry.request_spans import RequestTracer

TRACE_CONTEXT: ContextVar[Sequence[tuple[str, str]] | None] = ContextVar("trace", default=None)
"""Trace context for the service in place of the client's `traceparent` and `tracestate`."""

OK = 200
PROBES = frozenset({"/health", "/healthz", "/readyz"})
"""Routes that are not observed."""


class RequestObserver:
    """Observes the requests of one edge."""

    def __init__(self, metrics: EdgeMetrics, tracer: RequestTracer | None = None) -> None:
        self.metrics = metrics
        self._requests = RequestMetrics(metrics)
        self._tracer = tracer

    def begin(
        self,
        method: str,
        route: str,
        path: str,
        headers: MultiMapping[str],
        outcome: dict[str, object],
    ) -> ObservedRequest | None:
        """Begin to observe a request, in the request's own task. None: not observed."""
        if route in PROBES:
            return None
        observed = ObservedRequest(route, outcome)
        self._requests.begin(observed)
        if self._tracer is not None:
            observed.span = span = self._tracer.begin(method, route, path, headers)
            outcome["trace_id"] = span.trace_id
            TRACE_CONTEXT.set(span.context)
        return observed

    def end(
        self,
        observed: ObservedRequest,
        request_id: str,
        status: int,
        started: float,
        begun_at: float,
    ) -> None:
        """Record the end of a request. Status 499: its client disconnected.

        `started` is when the request arrived and `begun_at` is when its answer began, by
        `time.perf_counter`; `begun_at` is 0 if no answer began, or the time is unknown.
        """
        requests, code = self._requests, str(observed.outcome.get("code", ""))
        disconnected = status == CLIENT_CLOSED
        requests.end(observed, status, time.perf_counter() - started)
        if begun_at and (status == OK or disconnected):
            requests.observe_first_byte(observed, begun_at - started)
        if disconnected:
            requests.count_disconnect(answering=begun_at != 0)
        elif code and status == OK:
            requests.count_stream_error(code)
        if observed.span is not None:
            sent = (OK if begun_at else 0) if disconnected else status
            observed.span.end(sent, CLIENT_GONE if disconnected else code, request_id)


def route_of(request: web.Request) -> str:
    """Return the path pattern of the request's route. Empty: no route matches."""
    resource = request.match_info.route.resource
    return "" if resource is None else str(getattr(resource, "http_route", resource.canonical))


OBSERVER: Final = web.AppKey("observer", RequestObserver)
"""The observer of an application, if it has one."""
