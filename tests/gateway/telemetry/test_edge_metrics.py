"""What the edge counts of requests, however they come and however they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import grpc
import pytest
from pomogator.chat.v1 import content_pb2 as content
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.config import EdgeConfig
from gateway.overload.memory_monitor import MemoryMonitor, monitoring
from gateway.server import serving
from gateway.telemetry.edge_metrics import EdgeMetrics
from gateway.telemetry.metrics_page import serving_edge_metrics
from services.common.addresses import split_address
from tests.gateway.conftest import KEY, scripted_channel
from tests.stand import service
from tests.stand.service import Fault, Pause, Script

PATH = "/v1/chat/completions"
ROUTE = {"route": PATH}
ASKED: Mapping[str, object] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
STREAMED = {**ASKED, "stream": True}
CUT = Fault(code=grpc.StatusCode.UNAVAILABLE, reason="UPSTREAM_DISCONNECTED", message="cut")


class Counted:
    """An edge whose numbers are looked at."""

    def __init__(self, script: Script, http: aiohttp.ClientSession, metrics: EdgeMetrics) -> None:
        self.script = script
        self.http = http
        self._registry = CollectorRegistry()
        self._registry.register(metrics)

    def value(self, name: str, **labels: str) -> float | None:
        """A number at this moment; None where there is none."""
        return self._registry.get_sample_value(f"pomogator_edge_{name}", labels)

    @property
    def page(self) -> str:
        """All numbers, as Prometheus reads them."""
        return generate_latest(self._registry).decode()

    async def over(self, status: str, route: str = PATH) -> None:
        """Returns once a request has ended so: a client learns it before the edge is done."""
        while True:
            if self.value("requests_total", route=route, status=status):
                return
            await asyncio.sleep(0)


@pytest.fixture
async def counted(script: Script, tmp_path: Path) -> AsyncIterator[Counted]:
    metrics = EdgeMetrics()
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(scripted_channel(script, "in-process", tmp_path))
        edge = serving(channel, "127.0.0.1:0", EdgeConfig(drain_timeout_s=0.1), metrics=metrics)
        address = await stack.enter_async_context(edge)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(f"http://{address}", headers={"Authorization": f"Bearer {KEY}"})
        )
        yield Counted(script, http, metrics)


@pytest.fixture(params=["ordinary", "routed"])
def way(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Headers by which a request goes around aiohttp's parser, or through it."""
    return {} if request.param == "ordinary" else {"Connection": "close"}


async def test_a_whole_answer(counted: Counted, way: Mapping[str, str]) -> None:
    """It is counted once, with its time, and with that of its first byte."""
    counted.script.answer = service.answer(content.ContentPart(text="Hello"))
    async with counted.http.post(PATH, json=ASKED, headers=way) as answer:
        assert answer.status == 200
        await answer.read()
    await counted.over("200")

    assert counted.value("requests_total", **ROUTE, status="200") == 1
    assert counted.value("request_seconds_count", **ROUTE) == 1
    assert counted.value("first_byte_seconds_count", form="whole") == 1
    assert counted.value("first_byte_seconds_count", form="stream") == 0
    assert counted.value("inflight") == 0


async def test_a_stream_while_it_runs(counted: Counted, way: Mapping[str, str]) -> None:
    """It is in flight, and open, until it is over."""
    goes_on = Pause()
    counted.script.steps = [
        [service.started(), service.text("a")],
        goes_on,
        [service.choice_finished(), service.finished()],
    ]
    async with counted.http.post(PATH, json=STREAMED, headers=way) as answer:
        await answer.content.readany()
        running = [counted.value(name) for name in ("inflight", "streams", "connections")]
        goes_on.go_on.set()
        await answer.read()
    await counted.over("200")

    assert running == [1, 1, 1]
    assert (counted.value("inflight"), counted.value("streams")) == (0, 0)
    assert counted.value("first_byte_seconds_count", form="stream") == 1
    assert counted.value("unsent_bytes") == 0


async def test_a_stream_that_breaks_off(counted: Counted, way: Mapping[str, str]) -> None:
    """Its status was 200, and so the error that it ended with is counted apart."""
    counted.script.steps = [[service.started(), service.text("a")], CUT]
    async with counted.http.post(PATH, json=STREAMED, headers=way) as answer:
        await answer.read()
    await counted.over("200")

    assert counted.value("stream_errors_total", code="upstream_disconnected") == 1


@pytest.mark.parametrize(("begun", "phase"), [(False, "waiting"), (True, "answering")])
async def test_clients_that_leave(
    counted: Counted, way: Mapping[str, str], begun: bool, phase: str
) -> None:
    """Whether they left before the answer or in it is told apart."""
    reached = Pause()
    counted.script.steps = [[service.started(), service.text("a")], reached] if begun else [reached]
    asking = asyncio.create_task(counted.http.post(PATH, json=STREAMED, headers=way))
    await reached.reached.wait()
    if begun:
        (await asking).close()
    else:
        asking.cancel()
    await counted.over("499")

    assert counted.value("client_gone_total", phase=phase) == 1


async def test_refusals(counted: Counted, way: Mapping[str, str]) -> None:
    """A request that is refused here is counted by its status, and as no first byte."""
    headers = {**way, "Content-Type": "application/json"}
    async with counted.http.post(PATH, data=b"{", headers=headers) as answer:
        assert answer.status == 400
    await counted.over("400")

    assert counted.value("first_byte_seconds_count", form="whole") == 0


async def test_labels_are_ours(counted: Counted) -> None:
    """Of a path only the pattern is told, and of one that there is not, nothing."""
    for path, route in (
        ("/v1/models/a-model/of-mine", "/v1/models/{model}"),
        ("/v1/balance", "/v1/balance"),
        ("/v1/secret-prompt", ""),
    ):
        async with counted.http.get(path) as answer:
            await answer.read()
        await counted.over(str(answer.status), route)

    assert "of-mine" not in counted.page
    assert "secret" not in counted.page


async def test_probes_are_no_requests(counted: Counted) -> None:
    """What clusters ask every few seconds is not counted."""
    async with counted.http.get("/healthz") as answer:
        assert answer.status == 200

    assert counted.value("requests_total", route="/healthz", status="200") is None


async def test_what_is_no_http(counted: Counted) -> None:
    """Bytes that no parser takes are counted by themselves."""
    host, port = split_address(str(counted.http._base_url).removeprefix("http://").strip("/"))
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"\x16\x03\x01 no request\r\n\r\n")
    await reader.read()
    writer.close()
    await writer.wait_closed()

    assert counted.value("malformed_total") == 1


async def test_the_page_of_an_edge_alone() -> None:
    """It has the edge's numbers and the process's, and nothing is at other paths."""
    metrics = EdgeMetrics()
    memory = MemoryMonitor(lambda: 0.25)
    page = serving_edge_metrics(metrics, "127.0.0.1:0", "1.2.3", memory)
    async with monitoring(memory), page as bound, aiohttp.ClientSession() as http:
        while not memory.used_share:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)
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

    assert families["pomogator_memory_used_ratio"].samples[0].value == 0.25
    assert families["pomogator_build_info"].samples[0].labels == {"version": "1.2.3"}
    for name in ("pomogator_edge_requests", "pomogator_loop_lag_seconds", "process_open_fds"):
        assert name in families
    for family in metrics.collect():
        assert family.documentation.endswith(".")


@pytest.mark.parametrize("address", ["127.0.0.1", "256.0.0.1:0"])
async def test_an_address_that_cannot_be_had(address: str) -> None:
    """What is no address, or not ours, is an error before anything is served."""
    with pytest.raises((OSError, ValueError), match=r".+"):
        async with serving_edge_metrics(EdgeMetrics(), address, "", MemoryMonitor()):
            pass
