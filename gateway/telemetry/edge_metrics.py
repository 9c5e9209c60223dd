"""What the edge counts, in Prometheus' terms.

Counting is adding to plain numbers, a microsecond a request and nothing for what is streamed:
they take Prometheus' form when somebody looks. What goes up and down (requests, streams,
connections, bytes that clients have not read) is not counted at all, but looked up then.

Labels are bounded: `route` is one of ours, `status` and `code` are words of ours.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, cast

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from gateway.overload.concurrency_limit import ConcurrencyLimit
from gateway.overload.connection_limit import ConnectionLimit
from gateway.overload.memory_monitor import MemoryMonitor
from services.common.counters import Histogram

PREFIX = "pomogator_edge"

CLIENT_CLOSED = 499
"""The status of a request whose client left. It never got one; the number is nginx's."""

LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
DURATION_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1800.0)


class Running(Protocol):
    """A request that is being answered."""

    @property
    def streams(self) -> bool:
        """Whether its answer is a stream."""


class Connection(Protocol):
    """A client's connection."""

    @property
    def transport(self) -> asyncio.BaseTransport | None:
        """None: it is gone."""


class EdgeMetrics(Collector):
    """The metrics of one edge. To be registered where they are shown."""

    def __init__(self, routes: Sequence[str] = ("/v1/chat/completions",)) -> None:
        """`routes` are shown from the start: a rate needs a zero to start from."""
        self._requests: Counter[tuple[str, str]] = Counter({(route, "200"): 0 for route in routes})
        self._durations = {route: Histogram(DURATION_S) for route in routes}
        self._first_bytes = {"stream": Histogram(LATENCY_S), "whole": Histogram(LATENCY_S)}
        self._broken: Counter[str] = Counter()
        self._gone: Counter[str] = Counter({"waiting": 0, "answering": 0})
        self._running: set[Running] = set()
        self._connections: Callable[[], Iterable[Connection]] = tuple
        self._connection_limits: list[ConnectionLimit] = []
        self._call_limits: list[ConcurrencyLimit] = []
        self._memories: list[MemoryMonitor] = []
        self.malformed = 0
        """What was no HTTP."""

    def begin(self, request: Running) -> None:
        """A request is being answered."""
        self._running.add(request)

    def end(self, request: Running, route: str, status: int, lasted_s: float) -> None:
        """It is not any more."""
        self._running.discard(request)
        self._requests[route, str(status)] += 1
        durations = self._durations.get(route)
        if durations is None:
            durations = self._durations[route] = Histogram(DURATION_S)
        durations.observe(lasted_s)

    def first_byte(self, request: Running, after_s: float) -> None:
        """How long the first byte of its answer took."""
        self._first_bytes["stream" if request.streams else "whole"].observe(after_s)

    def left(self, *, answering: bool) -> None:
        """A client left before its answer was complete. `answering`: it had begun."""
        self._gone["answering" if answering else "waiting"] += 1

    def broke_off(self, code: str) -> None:
        """A stream ended with an error, although its status was 200."""
        self._broken[code] += 1

    def watch(
        self, connections: Callable[[], Iterable[Connection]], limit: ConnectionLimit
    ) -> None:
        """Shows these connections, as they are when somebody looks, and who was too many."""
        self._connections = connections
        self._connection_limits = [limit]

    def watch_call_limit(self, limit: ConcurrencyLimit) -> None:
        """Shows how many calls to services there may be, and those that were too many."""
        self._call_limits = [limit]

    def watch_memory(self, memory: MemoryMonitor) -> None:
        """Shows how many calls and connections the lack of memory has cost."""
        self._memories = [memory]

    def collect(self) -> Iterator[Metric]:
        """All of it, at this moment."""
        yield from self._counters()
        yield from self._histograms()
        yield from self._gauges()

    def _counters(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            f"{PREFIX}_requests",
            "Requests that are over; 499: the client left. `route` is empty where there is none.",
            labels=("route", "status"),
        )
        for labels, count in self._requests.items():
            requests.add_metric(labels, count)
        yield requests
        broken = CounterMetricFamily(
            f"{PREFIX}_stream_errors", "Streams that ended with an error.", labels=("code",)
        )
        for code, count in self._broken.items():
            broken.add_metric((code,), count)
        yield broken
        gone = CounterMetricFamily(
            f"{PREFIX}_client_gone",
            "Clients that left while they waited for an answer, or while they got it.",
            labels=("phase",),
        )
        for phase, count in self._gone.items():
            gone.add_metric((phase,), count)
        yield gone
        yield CounterMetricFamily(
            f"{PREFIX}_malformed", "What came and was no HTTP.", value=self.malformed
        )
        yield CounterMetricFamily(
            f"{PREFIX}_connections_refused",
            "Connections that were too many.",
            value=sum(limit.refused for limit in self._connection_limits),
        )
        yield CounterMetricFamily(
            f"{PREFIX}_calls_refused",
            "Calls that were not made, as services had refused those beyond so many, or memory was"
            " short.",
            value=sum(limit.refused for limit in self._call_limits)
            + sum(memory.refused for memory in self._memories),
        )
        yield CounterMetricFamily(
            f"{PREFIX}_connections_cut",
            "Connections that were ended since hardly any memory was left.",
            value=sum(memory.closed_connections for memory in self._memories),
        )

    def _histograms(self) -> Iterator[Metric]:
        durations = HistogramMetricFamily(
            f"{PREFIX}_request_seconds", "From a request's head to its answer's end.",
            labels=("route",),
        )  # fmt: skip
        for route, histogram in self._durations.items():
            histogram.add_to(durations, (route,))
        yield durations
        first = HistogramMetricFamily(
            f"{PREFIX}_first_byte_seconds",
            "From a completion's request to its answer's first byte. A stream whose model thinks"
            " for longer begins after ten seconds, with a comment.",
            labels=("form",),
        )
        for form, histogram in self._first_bytes.items():
            histogram.add_to(first, (form,))
        yield first

    def _gauges(self) -> Iterator[Metric]:
        streams = sum(request.streams for request in self._running)
        # uvloop's transports are none of asyncio's classes, but write as those do.
        transports = [
            cast("asyncio.WriteTransport", each.transport)
            for each in self._connections()
            if each.transport is not None
        ]
        unsent = sum(transport.get_write_buffer_size() for transport in transports)
        for name, about, value in (
            ("inflight", "Requests that are being answered.", len(self._running)),
            ("streams", "Of these, those whose answer is a stream.", streams),
            ("connections", "Connections that are open.", len(transports)),
            ("unsent_bytes", "What clients have not read, beyond the kernel's buffers.", unsent),
            (
                "calls_max",
                "The most calls to services at a time, as they refused more; 0: they did not.",
                sum(limit.calls_max or 0 for limit in self._call_limits),
            ),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", about, value=value)
