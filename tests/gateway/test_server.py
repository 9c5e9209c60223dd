from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import grpc
import pytest

from gateway.channel import open_channel
from gateway.config import EdgeConfig
from gateway.server import join_address, serving, split_address
from tests.fakes import service
from tests.fakes.service import Pause, Script
from tests.gateway.conftest import KEY, scripted_channel
from tests.gateway.test_completions import ASKED, STREAMED, URL, events


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "[::1]:0", "localhost:80"])
def test_addresses_are_taken_apart_and_put_together(address: str) -> None:
    """Brackets are IPv6's."""
    assert join_address(*split_address(address)) == address


@pytest.mark.parametrize("address", ["", "8080", ":8080", "a:b", "a:"])
def test_half_an_address_is_none(address: str) -> None:
    """Host and port are both needed."""
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_address(address)


async def test_a_service_that_is_not_there_is_503() -> None:
    """With a Retry-After; the probe says the same."""
    async with (
        open_channel("127.0.0.1:1") as channel,
        serving(channel, "127.0.0.1:0", EdgeConfig(drain_s=0.1)) as address,
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


class Stoppable:
    """An edge that a test may tell to stop while it talks to it."""

    def __init__(self, channel: grpc.aio.Channel, config: EdgeConfig) -> None:
        self._stop = asyncio.Event()
        self._bound: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve(channel, config))

    async def _serve(self, channel: grpc.aio.Channel, config: EdgeConfig) -> None:
        async with serving(channel, "127.0.0.1:0", config) as address:
            self._bound.set_result(address)
            await self._stop.wait()

    async def client(self) -> aiohttp.ClientSession:
        """A client with a key."""
        headers = {"Authorization": f"Bearer {KEY}"}
        return aiohttp.ClientSession(f"http://{await self._bound}", headers=headers)

    def stop(self) -> None:
        """Begins to drain."""
        self._stop.set()

    async def stopped(self) -> None:
        """Returns when everything has ended."""
        await self._task


@pytest.mark.parametrize("transport", ["in-process", "tcp"])
async def test_a_drain_lets_streams_end(tmp_path: Path, transport: str) -> None:
    """Nothing new is taken after it."""
    pause = Pause()
    script = Script(
        steps=[[service.started()], pause, [service.choice_finished(), service.finished()]]
    )
    async with scripted_channel(script, transport, tmp_path) as channel:
        edge = Stoppable(channel, EdgeConfig())
        async with await edge.client() as http:
            async with http.post(URL, json=STREAMED) as response:
                await pause.reached.wait()
                edge.stop()
                pause.go_on.set()
                assert events(await response.text())[-1] == "[DONE]"
            await edge.stopped()
            with pytest.raises(aiohttp.ClientConnectionError):
                await http.get("/healthz")


@pytest.mark.parametrize("transport", ["in-process", "tcp"])
async def test_a_drain_ends_what_does_not_end(tmp_path: Path, transport: str) -> None:
    """Streams with an error event and `[DONE]`, the rest with 503: nobody is left to guess."""
    streaming, answering = Pause(), Pause()
    script = Script(steps=[[service.started()], streaming], answer=answering)
    async with scripted_channel(script, transport, tmp_path) as channel:
        edge = Stoppable(channel, EdgeConfig(drain_s=0.05))
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
