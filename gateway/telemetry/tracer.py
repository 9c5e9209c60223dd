"""Opens the way of the spans, if there is one: to a collector, by OTLP over gRPC.

Where it is, OpenTelemetry's own variables say (OTEL_EXPORTER_OTLP_ENDPOINT), or else whoever
starts the process. What else there is to say, they say alone: OTEL_EXPORTER_OTLP_HEADERS and its
like, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_…

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

OpenTelemetry is loaded for those who have named a collector: it takes 80 ms of every start.
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
    """Traces were asked for and cannot be had. The message is for operators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracesOptions:
    """What is traced, and where it goes, where no variable says otherwise."""

    service: str
    """Who we are in traces."""
    version: str
    """Of the package."""
    endpoint: str = ""
    """The collector, `http://HOST:PORT` or `https://…`. Empty: only variables name one."""
    ratio: float = 1.0
    """The share of requests that are traced, where no caller has decided."""


Export: TypeAlias = Callable[
    [TracesOptions, str, Mapping[str, str]], AbstractAsyncContextManager["Tracer"]
]


@asynccontextmanager
async def opening_tracer(
    options: TracesOptions, env: Mapping[str, str]
) -> AsyncIterator[Tracer | None]:
    """What makes spans; None where nobody wants any.

    On the way out what waits is sent, for seconds at the most.

    Raises:
        TracesUnavailableError: `options` name a collector, but the library is not installed.
    """
    named = next((env[name] for name in ENDPOINT_VARIABLES if env.get(name)), "")
    if obstacle := _obstacle(env, options.endpoint or named):
        _log.info("traces.off", extra={"reason": obstacle})
        yield None
    elif not (named or options.endpoint):
        yield None
    elif (export := _export()) is None:
        if options.endpoint:
            raise TracesUnavailableError("traces need the extra: pip install 'pomogator[otel]'")
        # Clusters set the variables for all pods: that is no reason not to serve.
        _log.warning("traces.off", extra={"reason": "the extra `otel` is not installed"})
        yield None
    else:
        async with export(options, named or options.endpoint, env) as tracer:
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


def _obstacle(env: Mapping[str, str], endpoint: str) -> str:
    """Why the variables turn off what goes to `endpoint`. Empty: they do not."""
    if not endpoint:
        return ""
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return "OTEL_SDK_DISABLED"
    if env.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return "OTEL_TRACES_EXPORTER"
    protocol = next((env[name] for name in PROTOCOL_VARIABLES if env.get(name)), "grpc")
    return "" if protocol == "grpc" else "only OTLP over gRPC is spoken"
