"""What is noted of a request besides its line in the log: metrics and, if wanted, a span.

    watched = watch.begin(method, route, path, headers, outcome)
    …
    watch.end(watched, request_id, status, started, begun_at)

The context of the span reaches `gateway.rpc.call_metadata`, which sends it to the service, in a
context variable of the task that answers the request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from aiohttp import web
from multidict import MultiMapping

from gateway.telemetry.edge_metrics import CLIENT_CLOSED, EdgeMetrics

if TYPE_CHECKING:
    from gateway.telemetry.request_spans import EdgeSpan, EdgeTraces

TRACE_CONTEXT: ContextVar[Sequence[tuple[str, str]] | None] = ContextVar("trace", default=None)
"""What the service is told in place of the client's `traceparent` and `tracestate`."""

OK = 200
PROBES = frozenset({"/healthz", "/readyz"})
"""Routes that are no requests of anybody's, and not watched."""


class ObservedRequest:
    """A request that is being answered."""

    __slots__ = ("outcome", "route", "span")

    def __init__(self, route: str, outcome: dict[str, object]) -> None:
        self.route = route
        """The pattern of its path. Empty: there is nothing there."""
        self.outcome = outcome
        """What the log will say of it."""
        self.span: EdgeSpan | None = None
        """None: nobody traces requests."""

    @property
    def streams(self) -> bool:
        """Whether its answer is a stream."""
        return self.outcome.get("stream") is True


class RequestObserver:
    """Watches the requests of one edge."""

    def __init__(self, metrics: EdgeMetrics, traces: EdgeTraces | None = None) -> None:
        self.metrics = metrics
        self._traces = traces

    def begin(
        self,
        method: str,
        route: str,
        path: str,
        headers: MultiMapping[str],
        outcome: dict[str, object],
    ) -> ObservedRequest | None:
        """A request came in, in a task of its own. None: it is not watched."""
        if route in PROBES:
            return None
        watched = ObservedRequest(route, outcome)
        self.metrics.begin(watched)
        if self._traces is not None:
            watched.span = span = self._traces.begin(method, route, path, headers)
            outcome["trace_id"] = span.trace_id
            TRACE_CONTEXT.set(span.context)
        return watched

    def end(
        self,
        watched: ObservedRequest,
        request_id: str,
        status: int,
        started: float,
        begun_at: float,
    ) -> None:
        """It is over, with this status; 499: its client left.

        `started` and `begun_at` say when it came and when its answer began, by
        `time.perf_counter`; the second is 0 where there was none, or nobody knows.
        """
        metrics, code = self.metrics, str(watched.outcome.get("code", ""))
        gone = status == CLIENT_CLOSED
        metrics.end(watched, watched.route, status, time.perf_counter() - started)
        if begun_at and (status == OK or gone):
            metrics.first_byte(watched, begun_at - started)
        if gone:
            metrics.left(answering=begun_at != 0)
        elif code and status == OK:
            metrics.broke_off(code)
        if watched.span is not None:
            sent = (OK if begun_at else 0) if gone else status
            watched.span.end(sent, "client_gone" if gone else code, request_id)


def route_of(request: web.Request) -> str:
    """The pattern of the request's path. Empty: there is nothing there."""
    resource = request.match_info.route.resource
    return "" if resource is None else str(getattr(resource, "http_route", resource.canonical))


WATCH: Final = web.AppKey("watch", RequestObserver)
"""Who watches an application, if anybody does."""
