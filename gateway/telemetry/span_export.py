"""Export of spans to a collector, in batches, from a separate thread.

A collector that is unreachable, frozen or slow loses spans: those beyond the queue (2,048) are
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

FLUSH_TIMEOUT_S = 3.0
"""How long the export of the last spans may take at shutdown. The rest is dropped."""


@asynccontextmanager
async def exporting(
    options: TracesOptions, endpoint: str, env: Mapping[str, str]
) -> AsyncIterator[Tracer]:
    """Give a tracer whose spans are sent to `endpoint`."""
    # It logs every attempt as a warning, and a final failure as an error.
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
    """Return the sampler: the caller decides, else `ratio` of the traces are kept."""
    return ParentBased(TraceIdRatioBased(ratio))


def _resource(options: TracesOptions) -> Resource:
    """Return the attributes of this process: those of the variables, else ours."""
    ours = Resource({"service.name": options.service, "service.version": options.version})
    return Resource.create().merge(ours).merge(OTELResourceDetector().detect())


async def _stop(provider: TracerProvider, exporter: OTLPSpanExporter) -> None:
    """Send the remaining spans. The library itself would block for up to half a minute."""
    flushing = asyncio.ensure_future(asyncio.to_thread(provider.shutdown))
    done, _ = await asyncio.wait({flushing}, timeout=FLUSH_TIMEOUT_S)
    if not done:
        # Closing the channel ends the call to the collector; the rest is dropped.
        await asyncio.to_thread(exporter.shutdown)
    await flushing
