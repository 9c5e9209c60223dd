"""/metrics of an edge that runs alone: on a listener of its own, never on the public port.

In one process with the service the edge's metrics are on the service's page.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.overload.memory_monitor import MemoryMonitor
from gateway.telemetry.edge_metrics import EdgeMetrics
from services.common.addresses import join_address, split_address
from services.common.counters import Counters
from services.common.loop_lag import LoopLag

PATH = "/metrics"


@asynccontextmanager
async def showing(
    metrics: EdgeMetrics, address: str, version: str, memory: MemoryMonitor
) -> AsyncIterator[str]:
    """Serves the metrics at HOST:PORT, with those of the process; gives it with the real port.

    In Prometheus' text format, or in OpenMetrics' where that is asked for.

    Raises:
        OSError: it cannot listen there.
        ValueError: `address` is no HOST:PORT.
    """
    host, port = split_address(address)
    process = _Process(version, memory)
    registry = CollectorRegistry()
    for collector in (metrics, process):
        registry.register(collector)
    for make in (ProcessCollector, PlatformCollector, GCCollector):
        make(registry=registry)

    async def show(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get(PATH, show)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75, shutdown_timeout=1)
    await runner.setup()
    watching = asyncio.create_task(
        LoopLag(Counters("pomogator", registry)).watch(), name="loop lag"
    )
    try:
        await web.TCPSite(runner, host, port).start()
        yield join_address(host, runner.addresses[0][1])
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await runner.cleanup()


class _Process(Collector):
    """How the process is doing, by the names that the service's has, too."""

    def __init__(self, version: str, memory: MemoryMonitor) -> None:
        self._version = version
        self._memory = memory

    def collect(self) -> Iterator[Metric]:
        about = GaugeMetricFamily(
            "pomogator_build_info", "1; the labels say what runs.", labels=("version",)
        )
        about.add_metric((self._version,), 1)
        used = GaugeMetricFamily(
            "pomogator_memory_used_ratio",
            "Of the container's memory, what is in use; 0: it has no limit.",
            value=self._memory.used_share,
        )
        return iter((about, used))
