"""Sends spans to a collector, in batches, from a thread of its own.

A collector that is gone, frozen or slow costs spans: what does not fit in the queue (2,048) is
dropped, and no call waits for it. Needs the extra `otel`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Tracer

if TYPE_CHECKING:
    from gateway.telemetry.tracer import TracesOptions

FLUSH_S = 3.0
"""How long the last spans may take. A collector that takes longer does without them."""


@asynccontextmanager
async def exporting(
    options: TracesOptions, endpoint: str, env: Mapping[str, str]
) -> AsyncIterator[Tracer]:
    """Makes spans, and sends them to `endpoint`."""
    # It tells of every try as a warning, and of what it has given up as an error.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    exporter = OTLPSpanExporter(endpoint=endpoint)
    provider = TracerProvider(
        sampler=None if env.get("OTEL_TRACES_SAMPLER") else _sampler(options.ratio),
        resource=_resource(options),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer("pomogator", options.version)
    finally:
        await _stop(provider, exporter)


def _sampler(ratio: float) -> Sampler:
    """As the caller has decided, else so many."""
    return ParentBased(TraceIdRatioBased(ratio))


def _resource(options: TracesOptions) -> Resource:
    """Who sends them: as the variables say, else as we do."""
    ours = Resource({"service.name": options.service, "service.version": options.version})
    return Resource.create().merge(ours).merge(OTELResourceDetector().detect())


async def _stop(provider: TracerProvider, exporter: OTLPSpanExporter) -> None:
    """Sends what waits. The library's own patience is half a minute, and it blocks."""
    flushing = asyncio.ensure_future(asyncio.to_thread(provider.shutdown))
    done, _ = await asyncio.wait({flushing}, timeout=FLUSH_S)
    if not done:
        # The call to the collector ends with its channel, and what waits is given up.
        await asyncio.to_thread(exporter.shutdown)
    await flushing
