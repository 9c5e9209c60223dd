"""Traces of calls, where there is a tracer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from services.clock import Clock
from services.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from services.telemetry.traces import CallTraces


def call_traces(tracer: Tracer | None, clock: Clock) -> Tracing | None:
    """What traces calls; nothing where there is no tracer."""
    if tracer is None:
        return None
    # Who has a tracer has OpenTelemetry: nobody else is to wait until it is loaded.
    found: type[CallTraces] = import_module("services.telemetry.traces").CallTraces
    return found(tracer, clock)
