"""Metrics of requests: counters and histograms, a microsecond of CPU for each request.

Gauges are computed only when they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from services.common.plain_metrics import PlainMetrics

if TYPE_CHECKING:
    from gateway.telemetry.request_spans import RequestSpan

CLIENT_CLOSED = 499
"""The status, in logs and metrics, of a request whose client disconnected before it got one. The
number is nginx's."""

CLIENT_GONE = "client_gone"
"""The `error.type` of such a request in traces. Its span is not marked as failed."""

LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
DURATION_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1800.0)

STREAM, WHOLE = ("stream",), ("whole",)
"""Values of the label `form`."""


class ObservedRequest(msgspec.Struct, eq=False):
    """A request that is being answered, as metrics and traces see it."""

    route: str
    """The pattern of its path. Empty: no route matches."""
    outcome: dict[str, object]
    """Fields for its line in the access log."""
    span: RequestSpan | None = None
    """None: requests are not traced."""

    @property
    def streams(self) -> bool:
        """Whether its answer is a stream."""
        return self.outcome.get("stream") is True


class RequestMetrics:
    """The metrics of the requests of one edge."""

    def __init__(
        self, metrics: PlainMetrics, routes: Sequence[str] = ("/v1/chat/completions",)
    ) -> None:
        """Declare them. `routes` are shown from the start: a rate needs a zero to start from."""
        self._in_flight: set[ObservedRequest] = set()
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
        metrics.observable_gauge(
            "requests_in_flight", "Requests that are being answered.", lambda: len(self._in_flight)
        )
        metrics.observable_gauge(
            "streams",
            "Requests that are being answered with a stream.",
            lambda: sum(request.streams for request in self._in_flight),
        )
        for route in routes:
            _ = self._requests[route, "200"], self._durations[(route,)]
        for form in (STREAM, WHOLE):
            _ = self._first_bytes[form]
        for phase in ("waiting", "answering"):
            _ = self._disconnects[(phase,)]

    def begin(self, request: ObservedRequest) -> None:
        """Count a request as in flight."""
        self._in_flight.add(request)

    def end(self, request: ObservedRequest, status: int, duration_s: float) -> None:
        """Count a request that has ended."""
        self._in_flight.discard(request)
        route = request.route
        self._requests[route, str(status)].value += 1
        self._durations[route,].observe(duration_s)

    def observe_first_byte(self, request: ObservedRequest, after_s: float) -> None:
        """Record the time to the first byte of an answer."""
        self._first_bytes[STREAM if request.streams else WHOLE].observe(after_s)

    def count_disconnect(self, *, answering: bool) -> None:
        """Count a client that disconnected. `answering`: its answer had begun."""
        self._disconnects[("answering" if answering else "waiting",)].value += 1

    def count_stream_error(self, code: str) -> None:
        """Count a stream that ended with an error although its status was 200."""
        self._stream_errors[(code,)].value += 1
