"""Tracer that exports spans to a collector, by OTLP over gRPC.

OpenTelemetry's variable OTEL_EXPORTER_OTLP_ENDPOINT names the collector, else the configuration.
Everything else has only variables: OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES,
OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_…

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

OpenTelemetry is imported only if there is a collector: it adds 80 ms to the start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from gateway.telemetry.request_spans import RequestTracer

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_log = logging.getLogger("gateway.traces")


class TracesUnavailableError(Exception):
    """The configuration names a collector, but the library is missing. For operators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracesOptions:
    """Options of traces, where no variable overrides them."""

    service: str
    """The name of this service in traces."""
    version: str
    """The version of the package."""
    endpoint: str = ""
    """The collector, `http://HOST:PORT` or `https://…`. Empty: none but that of a variable."""
    ratio: float = 1.0
    """The share of requests that are traced, where the caller has not decided."""


Export: TypeAlias = Callable[
    [TracesOptions, str, Mapping[str, str]], AbstractAsyncContextManager["Tracer"]
]


@asynccontextmanager
async def opening_tracer(
    options: TracesOptions, env: Mapping[str, str]
) -> AsyncIterator[Tracer | None]:
    """Open the tracer; give None without a collector.

    At the end the remaining spans are sent, within `span_export.FLUSH_TIMEOUT_S`. Raises
    TracesUnavailableError: `options` name a collector, but the library is not installed.
    """
    endpoint = next((env[name] for name in ENDPOINT_VARIABLES if env.get(name)), "")
    if reason := _disabled_by(env, options.endpoint or endpoint):
        _log.info("traces.disabled", extra={"reason": reason})
        yield None
    elif not (endpoint or options.endpoint):
        yield None
    elif (export := _export()) is None:
        if options.endpoint:
            raise TracesUnavailableError("traces need the extra: pip install 'pomogator[otel]'")
        # Clusters set the variables for all pods: the edge serves without traces.
        _log.warning("traces.disabled", extra={"reason": "the extra `otel` is not installed"})
        yield None
    else:
        async with export(options, endpoint or options.endpoint, env) as tracer:
            yield tracer


def request_tracer(tracer: Tracer | None, scheme: str) -> RequestTracer | None:
    """Return the maker of an edge's spans; None without a tracer."""
    if tracer is None:
        return None
    found: type[RequestTracer] = import_module("gateway.telemetry.request_spans").RequestTracer
    return found(tracer, scheme)


def _export() -> Export | None:
    try:
        found: Export = import_module("gateway.telemetry.span_export").exporting
    except ModuleNotFoundError:  # OpenTelemetry comes with the extra `otel`.
        return None
    return found


def _disabled_by(env: Mapping[str, str], endpoint: str) -> str:
    """Return why the variables disable export to `endpoint`. Empty: they do not."""
    if not endpoint:
        return ""
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return "OTEL_SDK_DISABLED"
    if env.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return "OTEL_TRACES_EXPORTER"
    protocol = next((env[name] for name in PROTOCOL_VARIABLES if env.get(name)), "grpc")
    return "" if protocol == "grpc" else "only OTLP over gRPC is supported"
