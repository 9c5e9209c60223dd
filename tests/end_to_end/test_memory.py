"""Memory of a call while its answer streams, and of the process after a burst."""

from __future__ import annotations

import asyncio
import json
import platform
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path

import aiohttp
import grpc
import psutil
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

from services.common.heap import RELEASE_BYTES_MIN
from tests.faults.fault_stand import BEGIN, END, PATH, fitting
from tests.faults.processes import ASKED, priced_configuration
from tests.stand.servers import Topology, gateway_of, running_server
from tests.stand.upstream import FakeUpstream

CALLS = 40
TEXT_BYTES = 1_000_000
KEPT_MAX = 2.0
"""Of a text's size. It is kept once, to count its tokens where the provider does not; the body
that it came in and the one that it left in are two more."""

RETURNED_WITHIN_S = 60
"""Time enough on a busy machine; it takes three seconds."""


async def test_a_running_call_keeps_its_text_once(tmp_path: Path) -> None:
    """The request's bytes, received and sent, are freed once the answer begins."""
    goes_on = asyncio.Event()
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END])
        config = priced_configuration(upstream.url)
        async with running_server(tmp_path, config) as server, AsyncExitStack() as stack:
            http = await stack.enter_async_context(
                aiohttp.ClientSession(
                    f"http://{await server.address('http')}",
                    headers={"Authorization": f"Bearer {server.key}"},
                )
            )

            async def begin(text: str) -> None:
                asked = {**ASKED, "messages": [{"role": "user", "content": text}]}
                answer = await stack.enter_async_context(http.post(PATH, json=asked))
                assert answer.status == 200
                await answer.content.readany()

            await begin("Hi")
            process = psutil.Process(server.pid)
            before = process.memory_info().rss
            for _ in range(CALLS):
                await begin("x" * TEXT_BYTES)
            kept = process.memory_info().rss - before
            goes_on.set()
    assert kept < CALLS * TEXT_BYTES * KEPT_MAX


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns freed memory")
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("topology", ["single", pytest.param("split", marks=pytest.mark.nightly)])
async def test_the_memory_of_a_burst_returns_to_the_kernel(
    tmp_path: Path, topology: Topology, *, streamed: bool
) -> None:
    """After 16 bodies of 30 MB at once each process is soon as small as before, though idle."""
    small, large = (
        json.dumps(
            {**ASKED, "stream": streamed, "messages": [{"role": "user", "content": text}]}
        ).encode()
        for text in ("Hi", "word " * 6_000_000)
    )
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.play(fitting)
        config = tmp_path / "pomogator.toml"
        # The service apart refuses some of them, after it has received them.
        bounds = "\n[bounds]\nbody_memory_bytes_max = 320_000_000\n" if topology == "split" else ""
        config.write_text(priced_configuration(upstream.url) + bounds)
        servers = gateway_of(topology, tmp_path / "var", config)
        for server in servers.values():
            stack.push_async_callback(server.stop)
            address = await server.start()
        first, *_ = servers.values()
        headers = {
            "Authorization": f"Bearer {await first.first_key()}",
            "Content-Type": "application/json",
        }
        http = await stack.enter_async_context(
            aiohttp.ClientSession(f"http://{address}", headers=headers)
        )

        async def ask(body: bytes) -> int:
            async with http.post(PATH, data=BytesIO(body)) as answer:
                await answer.read()
                return answer.status

        assert await ask(small) == 200
        processes = [psutil.Process(server.pid) for server in servers.values()]
        before = [process.memory_info().rss for process in processes]
        statuses = await asyncio.gather(*(ask(large) for _ in range(16)))
        assert set(statuses) <= {200, 503}
        assert 200 in statuses
        for process, size in zip(processes, before, strict=True):
            await has_shrunk(process, size)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns freed memory")
async def test_large_requests_that_failed_are_freed(tmp_path: Path) -> None:
    """Of 16 requests of 30 MB at once that cannot be served, no more than gRPC itself keeps."""
    socket = f"unix:{tmp_path}/grpc.sock"
    config = priced_configuration("http://127.0.0.1:9")
    async with (
        running_server(tmp_path, config, "--grpc", socket, only="grpc") as server,
        grpc.aio.insecure_channel(socket, [("grpc.max_send_message_length", -1)]) as channel,
    ):
        ask = pb_grpc.ChatCompletionServiceStub(channel).CreateChatCompletion
        text = "word " * 6_000_000
        request = pb.CreateChatCompletionRequest()
        request.spec.messages.add().content.add(text=text)
        metadata = (("authorization", f"Bearer {server.key}"),)
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        calls = [ask(request, metadata=metadata) for _ in range(16)]
        for call in calls:
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        await has_shrunk(process, before + 4 * len(text))


async def has_shrunk(process: psutil.Process, size: int) -> None:
    """Return when the process is about as small as `size`, in bytes. Raises TimeoutError."""
    async with asyncio.timeout(RETURNED_WITHIN_S):
        while process.memory_info().rss > size + RELEASE_BYTES_MIN:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
