"""Metrics of an edge, on the fast path and through the router."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import grpc
import pytest
from multidict import CIMultiDict
from pomogator.chat.v1 import content_pb2 as content
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.config import EdgeConfig
from gateway.overload.memory_monitor import MemoryMonitor, monitoring
from gateway.server import serving_rest
from gateway.telemetry.edge_metrics import EdgeMetrics
from gateway.telemetry.edge_metrics_page import serving_edge_metrics
from gateway.telemetry.request_observer import (
    REQUESTS_MAX,
    ObservedRequest,
    RequestObserver,
    RequestTarget,
)
from services.common.addresses import split_address
from tests.gateway.conftest import KEY, scripted_channel
from tests.stand import service
from tests.stand.polling import until
from tests.stand.service import Fault, Pause, ScriptedService

PATH = "/v1/chat/completions"
ROUTE = {"route": PATH}
ASKED: Mapping[str, object] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
STREAMED = {**ASKED, "stream": True}
CUT = Fault(code=grpc.StatusCode.UNAVAILABLE, reason="UPSTREAM_DISCONNECTED", message="cut")


class MeasuredEdge:
    """An edge, a client of it, and its metrics."""

    def __init__(
        self, script: ScriptedService, http: aiohttp.ClientSession, metrics: EdgeMetrics
    ) -> None:
        self.script = script
        self.http = http
        self._registry = CollectorRegistry()
        self._registry.register(metrics)

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of a sample now; None without such a sample."""
        return self._registry.get_sample_value(f"pomogator_edge_{name}", labels)

    @property
    def page(self) -> str:
        """The metrics page, as Prometheus reads it."""
        return generate_latest(self._registry).decode()

    async def ended(self, status: str, route: str = PATH) -> None:
        """Wait until a request with this status has ended: its client sees the answer earlier."""
        while True:
            if self.value("requests_total", route=route, status=status):
                return
            await asyncio.sleep(0)


@pytest.fixture
async def edge(script: ScriptedService, tmp_path: Path) -> AsyncIterator[MeasuredEdge]:
    metrics = EdgeMetrics()
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(scripted_channel(script, "direct", tmp_path))
        listener = serving_rest(
            channel, "127.0.0.1:0", EdgeConfig(drain_timeout_s=0.1), metrics=metrics
        )
        address = await stack.enter_async_context(listener)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(f"http://{address}", headers={"Authorization": f"Bearer {KEY}"})
        )
        yield MeasuredEdge(script, http, metrics)


@pytest.fixture(params=["fast path", "router"])
def way(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Headers that send a request over the fast path, or through aiohttp's router."""
    return {} if request.param == "fast path" else {"Connection": "close"}


async def test_a_whole_answer_is_counted_once(edge: MeasuredEdge, way: Mapping[str, str]) -> None:
    """Its duration and the time to its first byte are recorded."""
    edge.script.answer = service.answer(content.ContentPart(text="Hello"))
    async with edge.http.post(PATH, json=ASKED, headers=way) as answer:
        assert answer.status == 200
        await answer.read()
    await edge.ended("200")

    assert edge.value("requests_total", **ROUTE, status="200") == 1
    assert edge.value("request_duration_seconds_count", **ROUTE) == 1
    assert edge.value("time_to_first_byte_seconds_count", form="whole") == 1
    assert edge.value("time_to_first_byte_seconds_count", form="stream") == 0
    assert edge.value("requests_in_flight") == 0


async def test_a_running_stream_is_in_flight(edge: MeasuredEdge, way: Mapping[str, str]) -> None:
    """The gauges of requests, streams and connections show it until its end."""
    goes_on = Pause()
    edge.script.steps = [
        [service.started(), service.text("a")],
        goes_on,
        [service.choice_finished(), service.finished()],
    ]
    async with edge.http.post(PATH, json=STREAMED, headers=way) as answer:
        await answer.content.readany()
        running = [edge.value(name) for name in ("requests_in_flight", "streams", "connections")]
        goes_on.go_on.set()
        await answer.read()
    await edge.ended("200")

    assert running == [1, 1, 1]
    assert (edge.value("requests_in_flight"), edge.value("streams")) == (0, 0)
    assert edge.value("time_to_first_byte_seconds_count", form="stream") == 1
    assert edge.value("unsent_bytes") == 0


async def test_a_stream_error_is_counted(edge: MeasuredEdge, way: Mapping[str, str]) -> None:
    """The status of the stream was 200: the error at its end has a counter of its own."""
    edge.script.steps = [[service.started(), service.text("a")], CUT]
    async with edge.http.post(PATH, json=STREAMED, headers=way) as answer:
        await answer.read()
    await edge.ended("200")

    assert edge.value("stream_errors_total", code="upstream_disconnected") == 1


@pytest.mark.parametrize(("begun", "phase"), [(False, "waiting"), (True, "answering")])
async def test_disconnects_are_counted_by_phase(
    edge: MeasuredEdge, way: Mapping[str, str], begun: bool, phase: str
) -> None:
    """A disconnect is counted as one before the answer or in it."""
    reached = Pause()
    edge.script.steps = [[service.started(), service.text("a")], reached] if begun else [reached]
    asking = asyncio.create_task(edge.http.post(PATH, json=STREAMED, headers=way))
    await reached.reached.wait()
    if begun:
        (await asking).close()
    else:
        asking.cancel()
    await edge.ended("499")

    assert edge.value("client_disconnects_total", phase=phase) == 1


async def test_a_refused_request_has_a_status_and_no_first_byte(
    edge: MeasuredEdge, way: Mapping[str, str]
) -> None:
    """The edge's own refusals do not count for the time to the first byte."""
    headers = {**way, "Content-Type": "application/json"}
    async with edge.http.post(PATH, data=b"{", headers=headers) as answer:
        assert answer.status == 400
    await edge.ended("400")

    assert edge.value("time_to_first_byte_seconds_count", form="whole") == 0


async def test_labels_come_from_routes_only(edge: MeasuredEdge) -> None:
    """The label is the route's pattern, and empty for an unknown path."""
    for path, route in (
        ("/v1/models/a-model/of-mine", "/v1/models/{model}"),
        ("/v1/balance", "/v1/balance"),
        ("/v1/secret-prompt", ""),
    ):
        async with edge.http.get(path) as answer:
            await answer.read()
        await edge.ended(str(answer.status), route)

    assert "of-mine" not in edge.page
    assert "secret" not in edge.page


async def test_probes_are_not_counted(edge: MeasuredEdge) -> None:
    """Clusters send them every few seconds."""
    async with edge.http.get("/healthz") as answer:
        assert answer.status == 200

    assert edge.value("requests_total", route="/healthz", status="200") is None


async def test_malformed_requests_are_counted(edge: MeasuredEdge) -> None:
    """Bytes that are not HTTP have a counter of their own."""
    host, port = split_address(str(edge.http._base_url).removeprefix("http://").strip("/"))
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"\x16\x03\x01 no request\r\n\r\n")
    await reader.read()
    writer.close()
    await writer.wait_closed()

    assert edge.value("malformed_requests_total") == 1


def test_each_request_is_counted_however_many_come_between_two_readings() -> None:
    """None waits for longer than some others take to end, and none is counted twice."""
    metrics, registry = EdgeMetrics(), CollectorRegistry()
    registry.register(metrics)
    observer, target = RequestObserver(metrics), RequestTarget(method="POST", route=PATH, path=PATH)
    number = 2 * REQUESTS_MAX + 3
    for streams, status in ((True, 200), (False, 200), (False, 429)):
        for _ in range(number):
            started = time.perf_counter()
            observed = ObservedRequest("r", target, started, {"stream": streams})
            observer.begin(observed, CIMultiDict())
            observer.end(observed, status, started + 0.02)

    counted = [
        registry.get_sample_value(f"pomogator_edge_{name}", labels)
        for name, labels in (
            ("requests_total", ROUTE | {"status": "200"}),
            ("requests_total", ROUTE | {"status": "429"}),
            ("request_duration_seconds_count", ROUTE),
            ("time_to_first_byte_seconds_count", {"form": "stream"}),
            ("time_to_first_byte_seconds_count", {"form": "whole"}),
        )
    ]
    assert counted == [2 * number, number, 3 * number, number, number]


async def test_the_metrics_page_of_an_edge_apart() -> None:
    """The page shows the metrics of the edge and of the process; other paths are 404."""
    metrics = EdgeMetrics()
    RequestObserver(metrics)
    memory = MemoryMonitor(lambda: 0.25)
    page = serving_edge_metrics(metrics, "127.0.0.1:0", "1.2.3", lambda: memory.used_share)
    async with monitoring(memory), page as bound, aiohttp.ClientSession() as http:
        await until(lambda: memory.used_share)
        async with http.get(f"http://{bound}/metrics") as answer:
            families = {
                family.name: family
                for family in text_string_to_metric_families(await answer.text())
            }
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with http.get(f"http://{bound}/metrics", headers=accept) as answer:
            assert (await answer.text()).endswith("# EOF\n")
        async with http.get(f"http://{bound}/") as answer:
            assert answer.status == 404
            assert answer.headers["Server"] == "pomogator"

    assert families["pomogator_memory_used_ratio"].samples[0].value == 0.25
    assert families["pomogator_build_info"].samples[0].labels == {"version": "1.2.3"}
    for name in ("pomogator_edge_requests", "pomogator_event_loop_lag_seconds", "process_open_fds"):
        assert name in families
    for family in metrics.collect():
        assert family.documentation.endswith(".")


@pytest.mark.parametrize("address", ["127.0.0.1", "256.0.0.1:0"])
async def test_an_unusable_address_is_an_error(address: str) -> None:
    """A malformed address, and one of another host, fail before anything is served."""
    with pytest.raises((OSError, ValueError), match=r".+"):
        async with serving_edge_metrics(EdgeMetrics(), address, "", lambda: 0.0):
            pass
