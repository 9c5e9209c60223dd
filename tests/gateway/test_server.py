from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from pomogator.chat.v1 import content_pb2 as content

from gateway.backend import Backend
from gateway.config import EdgeConfig
from gateway.http import runner
from gateway.rpc.service_channel import CALLS_HEALTH, open_channel
from gateway.server import serving_rest
from services.common.addresses import split_address
from tests.gateway.conftest import KEY, scripted_channel
from tests.gateway.http.raw import parsed, read_answer
from tests.gateway.surfaces.test_completion_handler import ASKED, STREAMED, URL, events
from tests.stand import service
from tests.stand.direct_backend import DirectBackend
from tests.stand.polling import until_status
from tests.stand.service import Pause, ScriptedService


async def test_an_unreachable_service_is_503() -> None:
    """The answer has Retry-After. Readiness is false, too."""
    async with (
        open_channel("127.0.0.1:1") as channel,
        serving_rest(channel, "127.0.0.1:0", EdgeConfig(drain_timeout_s=0.1)) as address,
        aiohttp.ClientSession(f"http://{address}") as http,
    ):
        headers = {"Authorization": f"Bearer {KEY}"}
        for asked in (ASKED, STREAMED):
            async with http.post(URL, json=asked, headers=headers) as response:
                body = await response.json()
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert body["error"]["code"] == "service_unavailable"
        async with http.get("/readyz") as response:
            assert response.status == 503


async def test_the_way_to_the_service_uses_no_proxy(
    script: ScriptedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself gRPC would send calls to a forward proxy, which is for providers."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    script.answer = service.answer()
    async with (
        scripted_channel(script, "tcp", tmp_path) as channel,
        serving_rest(channel, "127.0.0.1:0", EdgeConfig(drain_timeout_s=0.1)) as address,
        aiohttp.ClientSession(f"http://{address}") as http,
        http.post(URL, json=ASKED, headers={"Authorization": f"Bearer {KEY}"}) as response,
    ):
        assert response.status == 200


class Stoppable:
    """An edge that a test can stop while it sends requests."""

    def __init__(
        self, channel: grpc.aio.Channel, config: EdgeConfig, backend: Backend | None = None
    ) -> None:
        self._stop = asyncio.Event()
        self._bound: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve(channel, config, backend))

    async def _serve(
        self, channel: grpc.aio.Channel, config: EdgeConfig, backend: Backend | None
    ) -> None:
        async with serving_rest(channel, "127.0.0.1:0", config, backend=backend) as address:
            self._bound.set_result(address)
            await self._stop.wait()

    async def client(self) -> aiohttp.ClientSession:
        """A client with a key."""
        headers = {"Authorization": f"Bearer {KEY}"}
        return aiohttp.ClientSession(f"http://{await self._bound}", headers=headers)

    async def address(self) -> str:
        """Where it listens."""
        return await self._bound

    def stop(self) -> None:
        """Begins to drain."""
        self._stop.set()

    def kill(self) -> None:
        """Ends it at once."""
        self._task.cancel()

    async def stopped(self) -> None:
        """Returns when everything has ended."""
        await self._task


def direct(script: ScriptedService, transport: str) -> Backend | None:
    """The script without gRPC, if that is the transport."""
    return DirectBackend(script) if transport == "direct" else None


@pytest.mark.parametrize("transport", ["direct", "tcp"])
async def test_a_drain_lets_streams_end(tmp_path: Path, transport: str) -> None:
    """No new request is accepted after it."""
    pause = Pause()
    script = ScriptedService(
        steps=[[service.started()], pause, [service.choice_finished(), service.finished()]]
    )
    async with scripted_channel(script, transport, tmp_path) as channel:
        edge = Stoppable(channel, EdgeConfig(), direct(script, transport))
        async with await edge.client() as http:
            async with http.post(URL, json=STREAMED) as response:
                await pause.reached.wait()
                edge.stop()
                pause.go_on.set()
                assert events(await response.text())[-1] == "[DONE]"
            await edge.stopped()
            with pytest.raises(aiohttp.ClientConnectionError):
                await http.get("/healthz")


@pytest.mark.parametrize("transport", ["direct", "tcp"])
async def test_a_drain_ends_requests_at_its_timeout(tmp_path: Path, transport: str) -> None:
    """Streams end with an error event and `[DONE]`, other requests with 503."""
    streaming, answering = Pause(), Pause()
    script = ScriptedService(steps=[[service.started()], streaming], answer=answering)
    async with scripted_channel(script, transport, tmp_path) as channel:
        edge = Stoppable(channel, EdgeConfig(drain_timeout_s=0.05), direct(script, transport))
        async with await edge.client() as http, http.post(URL, json=STREAMED) as stream:
            whole = asyncio.create_task(http.post(URL, json=ASKED).__aenter__())
            await streaming.reached.wait()
            await answering.reached.wait()
            edge.stop()
            *_, last, done = events(await stream.text())
            assert json.loads(last)["error"]["code"] == "server_shutting_down"
            assert done == "[DONE]"
            assert (await whole).status == 503
        await edge.stopped()


@pytest.mark.parametrize("path", ["fast", "ordinary"])
@pytest.mark.parametrize("transport", ["direct", "tcp"])
async def test_a_drain_waits_for_no_client_of_a_stream_who_does_not_read(
    tmp_path: Path,
    path: str,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its call has ended by then, and the access log says why. Whole answers get time."""
    monkeypatch.setattr(runner, "_CLOSE_TIMEOUT_S", 3600.0)
    flood = [[service.text("x" * 1_000_000)] for _ in range(64)]
    script = ScriptedService(steps=[[service.started()], *flood])
    async with scripted_channel(script, transport, tmp_path) as channel:
        edge = Stoppable(channel, EdgeConfig(drain_timeout_s=1.0), direct(script, transport))
        reader, writer = await asyncio.open_connection(*split_address(await edge.address()))
        writer.write(sent(STREAMED, path))
        await reader.readuntil(b"data: ")
        cast("asyncio.Transport", writer.transport).pause_reading()

        with caplog.at_level(logging.INFO, "gateway.access"):
            edge.stop()
            async with asyncio.timeout(60):
                await edge.stopped()
        writer.close()
    assert ended(caplog) == (200, "server_shutting_down")


@pytest.mark.parametrize("path", ["fast", "ordinary"])
async def test_a_whole_answer_that_a_shutdown_cuts_off_is_logged_with_its_code(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client has not read it in time. Without the code it would seem to have left."""
    monkeypatch.setattr(runner, "_CLOSE_TIMEOUT_S", 0.1)
    script = ScriptedService(answer=service.answer(content.ContentPart(text="x" * 8_000_000)))
    async with scripted_channel(script, "direct", tmp_path) as channel:
        edge = Stoppable(channel, EdgeConfig(drain_timeout_s=0.1), direct(script, "direct"))
        reader, writer = await asyncio.open_connection(*split_address(await edge.address()))
        writer.write(sent(ASKED, path))
        await reader.readuntil(b"xxx")
        cast("asyncio.Transport", writer.transport).pause_reading()

        with caplog.at_level(logging.INFO, "gateway.access"):
            edge.stop()
            await edge.stopped()
        writer.close()
    assert ended(caplog) == (200, "server_shutting_down")


async def test_a_request_that_a_shutdown_cuts_off_before_its_answer_is_503_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of its body has not arrived."""
    monkeypatch.setattr(runner, "_CLOSE_TIMEOUT_S", 0.1)
    async with scripted_channel(ScriptedService(), "direct", tmp_path) as channel:
        edge = Stoppable(channel, EdgeConfig(drain_timeout_s=0.1))
        _, writer = await asyncio.open_connection(*split_address(await edge.address()))
        writer.write(sent(ASKED, "ordinary")[:-7])
        async with await edge.client() as http:
            await http.get("/healthz")

        with caplog.at_level(logging.INFO, "gateway.access"):
            edge.stop()
            await edge.stopped()
        writer.close()
    assert ended(caplog) == (503, "server_shutting_down")


@pytest.mark.parametrize("path", ["fast", "ordinary"])
async def test_a_client_that_leaves_during_a_drain_is_logged_as_one_that_left(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Status 499, without the code of the shutdown."""
    script = ScriptedService(steps=[[service.started()], Pause()])
    async with scripted_channel(script, "direct", tmp_path) as channel:
        edge = Stoppable(channel, EdgeConfig(), direct(script, "direct"))
        reader, writer = await asyncio.open_connection(*split_address(await edge.address()))
        writer.write(sent(STREAMED, path))
        await reader.readuntil(b"data: ")

        with caplog.at_level(logging.INFO, "gateway.access"):
            edge.stop()
            writer.close()
            await edge.stopped()
    assert ended(caplog) == (499, None)


def sent(request: object, path: str) -> bytes:
    """The bytes of a request that the edge answers on its fast path or through aiohttp."""
    body = json.dumps(request).encode()
    size = f"Content-Length: {len(body)}" if path == "fast" else "Transfer-Encoding: chunked"
    body = body if path == "fast" else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    head = (
        f"POST {URL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\n{size}\r\n\r\n"
    )
    return head.encode() + body


def ended(caplog: pytest.LogCaptureFixture) -> tuple[int, str | None]:
    """The status and code of the only access line."""
    (line,) = [record for record in caplog.records if record.getMessage() == "request.ended"]
    fields = vars(line)
    return fields["status"], fields.get("code")


async def test_a_drain_closes_idle_connections(tmp_path: Path) -> None:
    """It closes them at once, while a stream is still running."""
    pause = Pause()
    script = ScriptedService(
        steps=[[service.started()], pause, [service.choice_finished(), service.finished()]]
    )
    async with scripted_channel(script, "direct", tmp_path) as channel:
        edge = Stoppable(channel, EdgeConfig())
        async with await edge.client() as http, http.post(URL, json=STREAMED) as response:
            await pause.reached.wait()
            reader, writer = await asyncio.open_connection(*split_address(await edge.address()))
            for ask in (b"GET /healthz", b"POST /v1/chat/completions"):
                writer.write(ask + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                await reader.readuntil(b"}")

            edge.stop()

            assert await asyncio.wait_for(reader.read(), 10) in (b"", b"}")
            writer.close()
            pause.go_on.set()
            assert events(await response.text())[-1] == "[DONE]"
        await edge.stopped()


async def test_a_drain_lets_bodies_arrive(tmp_path: Path) -> None:
    """A request whose body has begun is answered, and its connection closed."""
    script = ScriptedService(answer=service.answer())
    async with scripted_channel(script, "direct", tmp_path) as channel:
        edge = Stoppable(channel, EdgeConfig())
        place = split_address(await edge.address())
        body = json.dumps(ASKED).encode()
        reader, writer = await asyncio.open_connection(*place)
        head = f"POST {URL} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:9])
        idle, idler = await asyncio.open_connection(*place)
        idler.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await read_answer(idle)
        edge.stop()
        assert await idle.read() == b""
        idler.close()
        writer.write(body[9:])
        received = parsed(await reader.read())
        writer.close()
        assert (received.status, received.headers["connection"]) == (200, "close")
        await edge.stopped()


async def test_answers_during_the_shutdown_delay_close_their_connections(tmp_path: Path) -> None:
    """Calls are still answered."""
    script = ScriptedService(
        steps=[[service.started(), service.choice_finished(), service.finished()]]
    )
    async with scripted_channel(script, "direct", tmp_path) as channel:
        edge = Stoppable(channel, EdgeConfig(shutdown_delay_s=30))
        async with await edge.client() as http:
            async with http.post(URL, json=STREAMED) as before:
                assert "Connection" not in before.headers
            edge.stop()
            while (await http.get("/readyz")).status == 200:
                pass
            async with http.post(URL, json=STREAMED) as after:
                assert events(await after.text())[-1] == "[DONE]"
                assert after.headers["Connection"] == "close"
            async with http.post(URL, json={"model": "m"}) as refused:
                assert (refused.status, refused.headers["Connection"]) == (400, "close")
        edge.kill()


async def test_one_ready_service_is_enough() -> None:
    """An edge is ready while any of its services is."""
    async with (
        serving_health(able=True) as able,
        serving_health(able=False) as leaving,
        open_channel(f"ipv4:{able},{leaving}") as channel,
        serving_rest(channel, "127.0.0.1:0", EdgeConfig(drain_timeout_s=0.1)) as address,
        aiohttp.ClientSession(f"http://{address}") as http,
    ):
        await until_status(http, "/readyz", 200)  # It may be connected to the other one first.
        assert [await ready_status(http) for _ in range(10)] == [200] * 10


async def ready_status(http: aiohttp.ClientSession) -> int:
    """The status of the edge's readiness."""
    async with http.get("/readyz") as response:
        return response.status


@asynccontextmanager
async def serving_health(*, able: bool) -> AsyncIterator[str]:
    """A server with a health service alone."""
    status = health_pb2.HealthCheckResponse
    vitals = HealthServicer()
    await vitals.set("", status.SERVING if able else status.NOT_SERVING)
    await vitals.set(CALLS_HEALTH, status.SERVING)
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(vitals, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)
