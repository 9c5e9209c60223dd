"""A process with few file descriptors, and clients that take them."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2 as content
from pomogator.chat.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub

from gateway.config import EdgeConfig
from gateway.overload.thresholds import CONNECTION_DESCRIPTORS_SHARE
from gateway.rpc.service_channel import open_channel
from services.rpc.listener import CONNECTIONS_SHARE
from tests.faults.fault_stand import BEGIN, CHARGE, END, MODEL, PATH, fitting
from tests.faults.processes import ASKED, asking, holds_are_closed, priced_configuration
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

FEW = 256
CLIENTS_MAX = int(FEW * CONNECTION_DESCRIPTORS_SHARE)
PROGRAM = "import resource as r, runpy, sys; r.setrlimit(r.RLIMIT_NOFILE, ({0}, {0}));"
STARVED = (
    sys.executable,
    "-c",
    PROGRAM.format(FEW) + "runpy.run_module('services', None, '__main__')",
)
"""The command, in a process that may have no more descriptors."""


async def edge_sample(server: Server, name: str) -> float:
    """A metric of the edge in the same process."""
    return (await server.samples())[f"pomogator_edge_{name}", frozenset()]


async def refused(url: str, key: str) -> None:
    """One more client gets 503 with Retry-After."""
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(url, json=ASKED) as answer,
    ):
        assert (answer.status, answer.headers["Connection"]) == (503, "close")
        assert 1 <= int(answer.headers["Retry-After"]) <= 3
        assert (await answer.json())["error"]["code"] == "overloaded"
        assert answer.headers["x-request-id"]


async def test_idle_clients_do_not_take_the_descriptors_of_active_ones(tmp_path: Path) -> None:
    """Any number of idle clients takes none from active calls; afterwards all is as before.

    Row 78.
    """
    goes_on = asyncio.Event()
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END], fitting)
        config = priced_configuration(upstream.url)
        async with (
            running_server(tmp_path, config, program=STARVED) as server,
            AsyncExitStack() as stack,
        ):
            address = await server.address("http")
            url = f"http://{address}{PATH}"
            running = await stack.enter_async_context(asking(url, server.key))
            host, _, port = address.rpartition(":")
            idle = [await asyncio.open_connection(host, int(port)) for _ in range(2 * FEW)]
            await server.event("connection.refused")
            assert await edge_sample(server, "connections_refused_total") > 0

            goes_on.set()
            assert (await running.text()).endswith("data: [DONE]\n\n")
            # Who is too many is let go after a moment: then there is room to be told so.
            await at_most(server, CLIENTS_MAX)
            await refill(host, int(port), server, stack)
            await refused(url, server.key)

            for _, writer in idle:
                writer.close()
            await stack.aclose()
            await at_most(server, 1)
            async with asking(url, server.key) as again:
                assert (await again.text()).endswith("data: [DONE]\n\n")
            server.send_signal(signal.SIGTERM)
            assert await server.ended() == 0
    crowded = [line for line in server.lines if line["event"] == "connection.refused"]
    assert len(crowded) < 20
    assert not [line for line in server.lines if line["level"] == "error"]
    charges = [line["charge_nano_usd"] for line in server.lines if "charge_nano_usd" in line]
    assert charges == [CHARGE, CHARGE]
    assert (await holds_are_closed(tmp_path)).get("held", 0) == 0


async def at_most(server: Server, clients: int) -> None:
    """Waits until all clients are disconnected."""
    async with asyncio.timeout(30):
        while await edge_sample(server, "connections") > clients:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # Nobody tells of it but by answering.


async def refill(host: str, port: int, server: Server, stack: AsyncExitStack) -> None:
    """Connects as many clients as are served."""
    while await edge_sample(server, "connections") < CLIENTS_MAX:
        _, writer = await asyncio.open_connection(host, port)
        stack.callback(writer.close)


async def test_grpc_connections_over_a_fifth_of_the_descriptors_are_closed(tmp_path: Path) -> None:
    """Connections over a fifth of the descriptors are closed at once; the others are served.

    Row 78.
    """
    async with FakeUpstream() as upstream:
        upstream.play(fitting)
        config = priced_configuration(upstream.url)
        service = running_server(tmp_path, config, only="grpc", program=STARVED)
        async with service as server, AsyncExitStack() as stack:
            target = await server.tcp_address()
            channel = await stack.enter_async_context(open_channel(target, EdgeConfig()))
            assert await completes(channel, server.key)
            host, _, port = target.rpartition(":")
            idle = [await asyncio.open_connection(host, int(port)) for _ in range(2 * FEW)]
            closed = [await closes(reader) for reader, _ in idle]
            assert closed.count(False) == int(FEW * CONNECTIONS_SHARE) - 1

            assert await completes(channel, server.key)
            for _, writer in idle:
                writer.close()
            later = await stack.enter_async_context(open_channel(target, EdgeConfig()))
            assert await completes(later, server.key)
    assert not [line for line in server.lines if line["level"] == "error"]


async def closes(reader: asyncio.StreamReader) -> bool:
    """Whether a server closes the connection; its first frame has its settings."""
    try:
        async with asyncio.timeout(20):
            return not await reader.read(1)
    except ConnectionError:
        return True


async def completes(channel: grpc.aio.Channel, key: str) -> bool:
    """Whether a call is answered."""
    text = content.ContentPart(text="Hi")
    message = content.Message(role=content.ROLE_USER, content=[text])
    spec = chat.ChatCompletionSpec(model=MODEL, messages=[message])
    answer = await ChatCompletionServiceStub(channel).CreateChatCompletion(
        chat.CreateChatCompletionRequest(spec=spec),
        metadata=(("authorization", f"Bearer {key}"),),
        timeout=30,
        wait_for_ready=True,
    )
    return bool(answer.choices)


async def test_bounds_of_the_file_apply_to_the_edge(tmp_path: Path) -> None:
    """`[bounds]` of the file limits the bodies and connections of the process's edge. Row 78."""
    async with FakeUpstream() as upstream:
        upstream.play(fitting)
        bounds = "[bounds]\nbody_bytes_max = 1024\nconnections_max = 1\n"
        config = priced_configuration(upstream.url) + bounds
        async with running_server(tmp_path, config) as server:
            url = f"http://{await server.address('http')}{PATH}"
            headers = {"Authorization": f"Bearer {server.key}"}
            async with aiohttp.ClientSession(headers=headers) as http:
                async with http.post(url, json=ASKED) as answer:
                    assert (answer.status, answer.headers.get("Connection")) == (200, None)
                    await answer.read()
                await refused(url, server.key)
                async with http.post(url, json={**ASKED, "user": "x" * 1024}) as answer:
                    assert answer.status == 413
    assert len(upstream.requests) == 1
