"""Request observer: access line and metrics of each request and, if tracing is on, its span.

Requests are counted together: at the latest `REQUESTS_MAX` of them, or when the metrics are read.

    observer.begin(observed, headers)
    …
    observer.end(observed, status, begun_at)

`TRACE_CONTEXT`, a context variable of the request's task, holds the context of the span for
`gateway.http.call_options`, from where it reaches the service. Gauges are computed only when they
are read.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from aiohttp import web
from multidict import MultiMapping

from gateway.errors import shutting_down
from gateway.telemetry.edge_metrics import EdgeMetrics
from services.common.json_logs import emit
from services.common.plain_metrics import PlainMetrics

if TYPE_CHECKING:
    from gateway.telemetry.request_spans import RequestSpan, RequestTracer

TRACE_CONTEXT: ContextVar[Mapping[str, str] | None] = ContextVar("trace", default=None)
"""Trace context for the service in place of the client's `traceparent` and `tracestate`."""

OK = 200
PROBES = frozenset({"/health", "/healthz", "/readyz"})
"""Routes of which only the access log tells."""

CLIENT_CLOSED = 499
"""The status, in logs and metrics, of a request whose client disconnected before it got one. The
number is nginx's."""

ANSWERED = frozenset({OK, CLIENT_CLOSED})
"""Statuses of requests whose answers may have begun, and are no errors."""

CLIENT_GONE = "client_gone"
"""The `error.type` of such a request in traces. Its span is not marked as failed."""

LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
DURATION_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1800.0)

REQUESTS_MAX = 256
"""Most requests that are counted together, so that the event loop is not held."""

STREAM, WHOLE = ("stream",), ("whole",)
"""Values of the label `form`."""

_access = logging.getLogger("gateway.access")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTarget:
    """What a request is sent to."""

    method: str
    route: str
    """The pattern of its path. Empty: no route matches."""
    path: str


class Observed(Protocol):
    """A request that is being answered, as the access log, metrics and traces see it."""

    request_id: str

    @property
    def target(self) -> RequestTarget:
        """What it is sent to."""

    started: float
    """When it arrived, by `time.perf_counter`."""
    outcome: dict[str, object]
    """Fields for its line in the access log, beside those that all lines have."""
    span: RequestSpan | None
    """None: requests are not traced."""


class ObservedRequest(msgspec.Struct, eq=False):
    """One that aiohttp has routed."""

    request_id: str
    target: RequestTarget
    started: float
    outcome: dict[str, object]
    span: RequestSpan | None = None


class RequestObserver:
    """Observes the requests of one edge."""

    def __init__(
        self,
        metrics: PlainMetrics | None = None,
        tracer: RequestTracer | None = None,
        routes: Sequence[str] = ("/v1/chat/completions",),
    ) -> None:
        """Declare the metrics. `routes` are shown from the start: a rate needs a zero first.

        Without `metrics` they are shown nowhere.
        """
        self.metrics = metrics = metrics or EdgeMetrics()
        self._tracer = tracer
        self._in_flight: set[Observed] = set()
        self._ended: list[tuple[str, int, bool, float, float | None]] = []
        """Requests that are not counted yet: route, status, whether it is a stream, seconds to its
        end, and to the first byte of its answer."""
        metrics.before_reading.append(self._count)
        self._requests = metrics.counter(
            "requests_total",
            "Requests that have ended. Status 499: the client disconnected. `route` is empty where"
            " no route matches.",
            "route", "status",
        )  # fmt: skip
        self._stream_errors = metrics.counter(
            "stream_errors_total", "Streams that ended with an error.", "code"
        )
        self._disconnects = metrics.counter(
            "client_disconnects_total",
            "Clients that disconnected before the answer began (waiting) or in it (answering).",
            "phase",
        )
        self._durations = metrics.histogram(
            "request_duration_seconds", "From a request's head to the end of its answer.",
            DURATION_S, "route",
        )  # fmt: skip
        self._first_bytes = metrics.histogram(
            "time_to_first_byte_seconds",
            "From a request for a completion to the first byte of its answer. A stream without an"
            " event for ten seconds begins with a comment.",
            LATENCY_S,
            "form",
        )
        for route in routes:
            _ = self._requests[route, "200"], self._durations[(route,)]
        for form in (STREAM, WHOLE):
            _ = self._first_bytes[form]
        for phase in ("waiting", "answering"):
            _ = self._disconnects[(phase,)]
        self._declare_gauges(metrics)

    def _declare_gauges(self, metrics: PlainMetrics) -> None:
        metrics.observable_gauge(
            "requests_in_flight", "Requests that are being answered.", lambda: len(self._in_flight)
        )
        metrics.observable_gauge(
            "streams",
            "Requests that are being answered with a stream.",
            lambda: sum(request.outcome.get("stream") is True for request in self._in_flight),
        )

    def begin(self, observed: Observed, headers: MultiMapping[str]) -> None:
        """Begin to observe a request with these headers, in its own task."""
        target = observed.target
        if target.route in PROBES:
            return
        self._in_flight.add(observed)
        if self._tracer is not None:
            span = self._tracer.begin(target.method, target.route, target.path, headers)
            observed.span = span
            observed.outcome["trace_id"] = span.trace_id
            TRACE_CONTEXT.set(span.context)

    def end(self, observed: Observed, status: int, begun_at: float) -> None:
        """Record the end of a request. Status 499: its client disconnected.

        `begun_at` is when its answer began, by `time.perf_counter`; 0 if none began, or the time is
        unknown.
        """
        duration_s = time.perf_counter() - observed.started
        if _access.isEnabledFor(logging.INFO):
            _write_line(observed, status, duration_s)
        route, outcome = observed.target.route, observed.outcome
        if route in PROBES:
            return
        self._in_flight.discard(observed)
        if status == OK:
            if (code := outcome.get("code")) and outcome.get("stream") is True:
                self._stream_errors[str(code),].value += 1
        elif status == CLIENT_CLOSED:
            self._disconnects["answering" if begun_at else "waiting",].value += 1
        first_byte_s = begun_at - observed.started if begun_at and status in ANSWERED else None
        streams = outcome.get("stream") is True
        self._ended.append((route, status, streams, duration_s, first_byte_s))
        if len(self._ended) == REQUESTS_MAX:
            self._count()
        if observed.span is not None:
            _end_span(observed, observed.span, status, begun_at)

    def _count(self) -> None:
        """Count requests that have ended, those of one route, status and form together."""
        ended, self._ended = self._ended, []
        alike = defaultdict[tuple[str, int, bool], list[tuple[float, float | None]]](list)
        for route, status, streams, duration_s, first_byte_s in ended:
            alike[route, status, streams].append((duration_s, first_byte_s))
        for (route, status, streams), times in alike.items():
            self._requests[route, str(status)].value += len(times)
            self._durations[route,].observe_all([each_s for each_s, _ in times])
            first_bytes = self._first_bytes[STREAM if streams else WHOLE]
            first_bytes.observe_all([each_s for _, each_s in times if each_s is not None])


def _end_span(observed: Observed, span: RequestSpan, status: int, begun_at: float) -> None:
    if status == CLIENT_CLOSED:
        span.end(OK if begun_at else 0, CLIENT_GONE, observed.request_id)
    else:
        span.end(status, str(observed.outcome.get("code", "")), observed.request_id)


def _write_line(observed: Observed, status: int, duration_s: float) -> None:
    """Write the access line of a request."""
    line = {
        "request_id": observed.request_id,
        "method": observed.target.method,
        "path": observed.target.path,
        **observed.outcome,
        "status": status,
        "duration_ms": round(duration_s * 1000),
    }
    emit(_access, "request.ended", line)


def cut_off(outcome: dict[str, object], begun_at: float) -> int:
    """Return the status of a request that a shutdown has cut off, and add its code to `outcome`.

    `begun_at` is as in `RequestObserver.end`: an answer that has begun has status 200.
    """
    error = shutting_down()
    outcome["code"] = error.code
    return OK if begun_at else error.status


def route_of(request: web.Request) -> str:
    """Return the path pattern of the request's route. Empty: no route matches."""
    resource = request.match_info.route.resource
    return "" if resource is None else str(getattr(resource, "http_route", resource.canonical))


OBSERVER: Final = web.AppKey("observer", RequestObserver)
"""The observer of an application."""
