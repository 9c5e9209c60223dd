"""Metrics page of an edge apart, on a listener of its own, never on the public port.

In one process with the service, the service's page has the edge's metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from gateway.telemetry.edge_metrics import EdgeMetrics
from services.common.metrics_page import serving_metrics
from services.common.process_metrics import ProcessMetrics


@asynccontextmanager
async def serving_edge_metrics(
    metrics: EdgeMetrics, address: str, version: str, memory_used: Callable[[], float]
) -> AsyncIterator[str]:
    """Serve the edge's and the process's metrics at HOST:PORT; give it with the real port.

    `memory_used` is the share of the container's memory that is in use. Raises OSError: it cannot
    listen there. Raises ValueError: `address` is not HOST:PORT.
    """
    process = ProcessMetrics(version)
    process.registry.register(metrics)
    process.memory_used.set_function(memory_used)
    async with serving_metrics(process.registry, address) as bound:
        watching = asyncio.create_task(process.loop_lag.watch(), name="loop lag")
        try:
            yield bound
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
