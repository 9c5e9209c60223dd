"""The tracer with and without a collector, and with one that fails."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator, Mapping

import pytest
from opentelemetry.trace import Tracer

from gateway.telemetry.tracer import TracesOptions, TracesUnavailableError, opening_tracer
from tests.stand.trace_collector import QUICK, TraceCollector, running_collector

OPTIONS = TracesOptions(service="pomogator", version="1.2.3")


@pytest.fixture
async def collector() -> AsyncIterator[TraceCollector]:
    async with running_collector() as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads its variables itself."""
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


def named(collector: TraceCollector) -> TracesOptions:
    """Return options that name the collector."""
    return TracesOptions(service="pomogator", version="1.2.3", endpoint=collector.endpoint)


async def test_spans_reach_the_collector(collector: TraceCollector) -> None:
    """Each has our name and version, and the remaining ones are sent at the end."""
    async with opening_tracer(named(collector), {}) as tracer:
        assert tracer is not None
        tracer.start_span("early").end()
        (early,) = await collector.arrived(1)
        tracer.start_span("late").end()
    early, late = await collector.arrived(2)

    assert (early.name, late.name, early.service) == ("early", "late", "pomogator")
    assert b"1.2.3" in collector.raw


async def test_variables_override_options(
    collector: TraceCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry's variables decide on the endpoint, the attributes and the sampler."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "other-gateway")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    options = TracesOptions(
        service="pomogator", version="1.2.3", endpoint="http://127.0.0.1:9", ratio=0.0
    )
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_TRACES_SAMPLER": "always_on"}

    async with opening_tracer(options, env) as tracer:
        assert tracer is not None
        tracer.start_span("one").end()
    (span,) = await collector.arrived(1)

    assert span.service == "other-gateway"
    assert b"deployment.environment.name" in collector.raw


async def test_the_ratio_decides_about_new_traces(collector: TraceCollector) -> None:
    """At a ratio of 0 no trace that begins here is sent."""
    options = TracesOptions(
        service="pomogator", version="1.2.3", endpoint=collector.endpoint, ratio=0.0
    )
    async with opening_tracer(options, {}) as tracer:
        assert tracer is not None
        assert not tracer.start_span("unseen").is_recording()

    assert not collector.spans


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_TRACES_EXPORTER": "none"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
        },
    ],
)
async def test_there_is_no_tracer_without_a_collector(env: Mapping[str, str]) -> None:
    """A variable may disable it, too."""
    async with opening_tracer(OPTIONS, env) as tracer:
        assert tracer is None


async def test_without_the_library_a_configured_collector_is_an_error(
    collector: TraceCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables, which clusters set for all pods, are ignored then."""
    monkeypatch.setitem(sys.modules, "gateway.telemetry.span_export", None)

    with pytest.raises(TracesUnavailableError, match="otel"):
        async with opening_tracer(named(collector), {}):
            pass
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    async with opening_tracer(OPTIONS, env) as tracer:
        assert tracer is None


async def many(tracer: Tracer | None) -> None:
    """Make more spans than the queue holds."""
    assert tracer is not None
    for number in range(3000):
        tracer.start_span(str(number)).end()
        if number % 100 == 0:
            await asyncio.sleep(0)


async def test_an_unreachable_collector_loses_spans(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans beyond the queue are dropped, and the tracer closes in time."""
    monkeypatch.setattr("gateway.telemetry.span_export.FLUSH_TIMEOUT_S", 0.1)
    options = TracesOptions(service="s", version="1", endpoint="http://127.0.0.1:9")
    with caplog.at_level(logging.CRITICAL):
        async with opening_tracer(options, {}) as tracer:
            await many(tracer)


async def test_a_frozen_collector_loses_spans(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector accepts connections and never answers: the tracer closes in time."""
    monkeypatch.setattr("gateway.telemetry.span_export.FLUSH_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, caplog.at_level(logging.CRITICAL):
        host, port = silent.getsockname()
        options = TracesOptions(service="s", version="1", endpoint=f"http://{host}:{port}")
        async with opening_tracer(options, {}) as tracer:
            await many(tracer)
