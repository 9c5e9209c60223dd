"""Metrics of client connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import cast

from aiohttp.web_protocol import RequestHandler

from services.common.plain_metrics import PlainCounter, PlainMetrics


def declare_connection_metrics(
    metrics: PlainMetrics, connections: Callable[[], Collection[RequestHandler]]
) -> PlainCounter:
    """Declare the metrics of these connections. Return the counter of malformed requests."""

    def transports() -> list[asyncio.WriteTransport]:
        # uvloop's transports are none of asyncio's classes, but write as those do.
        return [
            cast("asyncio.WriteTransport", each.transport)
            for each in connections()
            if each.transport is not None
        ]

    metrics.observable_gauge("connections", "Open connections.", lambda: len(transports()))
    metrics.observable_gauge(
        "unsent_bytes",
        "Bytes that clients have not read, beyond the kernel's buffers.",
        lambda: sum(each.get_write_buffer_size() for each in transports()),
    )
    return metrics.counter("malformed_requests_total", "Requests that are not valid HTTP.")[()]
