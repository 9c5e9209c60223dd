"""Metrics of one edge. Every component declares its own, and none is updated for a stream's chunks.

    gateway.telemetry.request_observer  requests, streams, their durations
    gateway.http.connection_metrics     connections, unsent bytes, malformed requests
    gateway.overload.overload_metrics   refused calls and connections, limits

Labels are bounded: `route` is a route of the edge, `status` and `code` are those of its answers.
"""

from __future__ import annotations

from services.common.plain_metrics import PlainMetrics

PREFIX = "pomogator_edge"


class EdgeMetrics(PlainMetrics):
    """The metrics of one edge, to be registered where they are shown."""

    def __init__(self) -> None:
        super().__init__(PREFIX)
