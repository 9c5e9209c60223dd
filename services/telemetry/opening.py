"""Traces of calls, where there is a tracer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.clock import Clock
from services.telemetry.tracing import Tracing

try:
    from services.telemetry.traces import CallTraces
except ModuleNotFoundError:  # OpenTelemetry comes with the extra `otel`: without, no tracer.
    CallTraces = None  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


def call_traces(tracer: Tracer | None, clock: Clock) -> Tracing | None:
    """What traces calls; nothing where there is no tracer."""
    return None if tracer is None else CallTraces(tracer, clock)
