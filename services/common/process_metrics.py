"""Metrics that each of our processes has, whether it runs the edge, the service or both."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)

from services.common.loop_lag import LoopLag
from services.common.plain_metrics import PlainMetrics

PREFIX = "pomogator"


class ProcessMetrics:
    """The registry of a process with its first metrics."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.counters = PlainMetrics(PREFIX, self.registry)
        self.loop_lag = LoopLag(self.counters)
        self.memory_used = Gauge(
            f"{PREFIX}_memory_used_ratio",
            "Share of the container's memory that is in use; 0: it has no limit.",
            registry=self.registry,
        )
        build = Gauge(
            f"{PREFIX}_build_info",
            "1; the labels say what runs.",
            ("version",),
            registry=self.registry,
        )
        build.labels(version).set(1)
