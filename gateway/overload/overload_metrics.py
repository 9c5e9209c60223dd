"""Metrics of admission and load shedding."""

from __future__ import annotations

from gateway.backend import LearnedLimit
from gateway.overload.body_budget import BodyBudget
from gateway.overload.connection_limit import ConnectionLimit
from gateway.overload.memory_monitor import MemoryMonitor
from services.common.plain_metrics import PlainMetrics


def declare_call_metrics(
    metrics: PlainMetrics,
    limit: LearnedLimit | None,
    memory: MemoryMonitor | None,
    bodies: BodyBudget,
) -> None:
    """Declare the metrics of refused calls. Without `limit`, the service in this process limits."""

    def refused() -> int:
        refused = (limit.refused if limit else 0) + (memory.refused if memory else 0)
        return refused + bodies.refused

    def calls_max() -> int:
        return (limit.calls_max if limit else None) or 0

    metrics.observable_counter(
        "calls_refused_total",
        "Calls that the edge refused: above a limit of calls or bodies, or while memory was short.",
        refused,
    )
    metrics.observable_gauge(
        "calls_max",
        "The edge's concurrency limit of calls, learned from the service's refusals; 0: no limit.",
        calls_max,
    )
    metrics.observable_counter(
        "connections_closed_total",
        "Connections that were closed because memory was critical.",
        lambda: memory.closed_connections if memory else 0,
    )


def declare_limit_metrics(metrics: PlainMetrics, limit: ConnectionLimit) -> None:
    """Declare the metrics of a connection limit."""
    metrics.observable_counter(
        "connections_refused_total", "Connections above the limit.", lambda: limit.refused
    )
