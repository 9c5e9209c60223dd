"""Opening of call traces, without OpenTelemetry unless there is a tracer."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from services.clock import Clock

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from services.telemetry.call_spans import CallTracer

NO_HEADERS: Mapping[str, str] = {}


class TracedChannel(Protocol):
    """A channel's settings that spans show: `services.config.ChannelConfig`."""

    @property
    def name(self) -> str:
        """Unique name."""

    @property
    def dialect(self) -> str:
        """Dialect of the provider."""

    @property
    def base_url(self) -> str:
        """Address of the provider."""

    @property
    def trace_context(self) -> bool:
        """Whether the provider gets the trace's ID."""


class TracedTarget(Protocol):
    """The target of an attempt: `services.providers.base.Target`, whose package is above this."""

    @property
    def channel(self) -> TracedChannel:
        """The account with the provider."""

    @property
    def model(self) -> str:
        """The provider's name of the model."""


def call_tracer(tracer: Tracer | None, clock: Clock) -> CallTracer | None:
    """Return what traces calls, or None without a tracer.

    OpenTelemetry takes 80 ms to load, so processes without a tracer do not load it.
    """
    if tracer is None:
        return None
    found: type[CallTracer] = import_module("services.telemetry.call_spans").CallTracer
    return found(tracer, clock)
