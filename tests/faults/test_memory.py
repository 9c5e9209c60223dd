"""The container's memory runs out slowly."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub

from gateway.overload.cgroup import ContainerMemory
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.overload.thresholds import (
    CLOSE_BYTES_MIN,
    MEMORY_CRITICAL,
    MEMORY_LOW,
    MEMORY_SHORT,
)
from services.rpc.local_channel import local_channel
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import (
    BEGIN,
    CHARGE,
    END,
    PATH,
    STEADY,
    TEXT,
    FaultStand,
    fitting,
)
from tests.faults.log_and_metrics import by
from tests.faults.processes import ASKED, priced_configuration
from tests.stand.control_group import ControlGroup, control_group
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

WIRES = pytest.mark.parametrize("wire", [False, True])


class Gauge:
    """A container's memory in use, as set by a test."""

    def __init__(self) -> None:
        self.memory = MemoryMonitor(lambda: self._used)
        self._used = 0.5

    async def at(self, stand: FaultStand, used: float) -> None:
        """Sets it. Returns when the process has read it."""
        self._used = used
        await stand.until(lambda: self.memory.used_share == used)


@asynccontextmanager
async def uploading(stand: FaultStand, size: int) -> AsyncIterator[asyncio.StreamReader]:
    """A request whose body has come for the most part, and never comes whole."""
    reader, writer = await asyncio.open_connection(*stand.address)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stand.key}\r\n"
        f"Content-Length: {size}\r\n\r\n"
    )
    try:
        writer.write(head.encode() + b" " * (size - 1))
        await writer.drain()
        yield reader
    finally:
        writer.transport.abort()


@WIRES
async def test_memory_pressure_sheds_in_three_steps(open_stand: OpenStand, wire: bool) -> None:
    """First keep-alive ends, then calls are refused, then the largest connections are closed.

    Row 77.
    """
    gauge = Gauge()
    stand = await open_stand(memory=gauge.memory, wire=wire)
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    running = asyncio.create_task(stand.ask())
    await stand.first.request()
    assert "Connection" not in (await stand.ask(model=STEADY)).headers

    await gauge.at(stand, MEMORY_LOW)
    last = await stand.ask(model=STEADY)
    assert (last.content, last.headers["Connection"]) == (TEXT, "close")

    async with uploading(stand, 4 * CLOSE_BYTES_MIN) as upload:
        await stand.until(lambda: stand.edge_sample("connections") == 2)
        await gauge.at(stand, MEMORY_SHORT)
        for stream in (True, False):
            refused = await stand.ask(model=STEADY, stream=stream)
            assert (refused.status, refused.code) == (503, "overloaded")
            assert 1 <= float(refused.headers["retry-after-ms"]) / 1000 <= 3
        async with local_channel(stand.service.register) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await ChatCompletionServiceStub(channel).CreateChatCompletion(
                    chat.CreateChatCompletionRequest(),
                    metadata=(("authorization", f"Bearer {stand.key}"),),
                )
        assert told.value.code() is grpc.StatusCode.UNAVAILABLE
        async with uploading(stand, 4 * CLOSE_BYTES_MIN) as another:
            assert (await another.readline()).startswith(b"HTTP/1.1 503 ")
        assert stand.edge_sample("calls_refused_total") == (3 if wire else 1)

        await gauge.at(stand, MEMORY_CRITICAL)
        assert await upload.read() == b""
    assert stand.edge_sample("connections_closed_total") == 1
    started = stand.log.of("memory_stage.started", stage="critical")
    assert [line["used_share"] for line in started] == [MEMORY_CRITICAL]

    await gauge.at(stand, 0.5)
    goes_on.set()
    assert (await running).content == TEXT
    assert (await stand.ask(model=STEADY)).content == TEXT
    assert await stand.charged() == (4, 4 * CHARGE)
    assert len(stand.log.of("memory_stage.ended", stage="short")) == 1


async def test_a_memory_refusal_does_not_lower_an_edges_limit(open_stand: OpenStand) -> None:
    """After a memory shortage a service gets as many calls as before. Row 77."""
    gauge = Gauge()
    stand = await open_stand(service_memory=gauge.memory, wire=True)
    await gauge.at(stand, MEMORY_SHORT)
    assert (await stand.ask()).code == "overloaded"
    await gauge.at(stand, 0.5)

    replies = await asyncio.gather(*(stand.ask(model=STEADY) for _ in range(40)))
    assert {reply.status for reply in replies} == {200}
    assert stand.edge_sample("calls_max") == 0


async def test_pipelined_requests_are_refused_one_by_one(open_stand: OpenStand) -> None:
    """Requests in one piece are refused one by one, too. Row 77."""
    gauge = Gauge()
    stand = await open_stand(memory=gauge.memory, wire=True)
    await gauge.at(stand, MEMORY_SHORT)
    body = json.dumps(ASKED).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stand.key}\r\n"
    one = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await asyncio.open_connection(*stand.address)
    writer.write(one + one)
    assert (await reader.readline()).split()[1] == b"503"
    await reader.read()
    writer.close()

    await gauge.at(stand, 0.5)
    assert stand.edge_sample("calls_refused_total") == 1
    assert stand.first.requests == []


async def test_any_form_of_request_is_refused_under_memory_pressure(open_stand: OpenStand) -> None:
    """In chunks, by HTTP/1.0, with bodies that are awaited or not: all are refused. Row 77."""
    gauge = Gauge()
    stand = await open_stand(memory=gauge.memory)
    await gauge.at(stand, MEMORY_SHORT)
    named = f"Host: x\r\nAuthorization: Bearer {stand.key}\r\n"
    for version, more in (
        ("1.1", "Transfer-Encoding: chunked\r\n"),
        ("1.1", "Expect: 100-continue\r\nContent-Length: 5\r\n"),
        ("1.0", "Content-Length: 5\r\n"),
    ):
        reader, writer = await asyncio.open_connection(*stand.address)
        writer.write(f"POST {PATH} HTTP/{version}\r\n{named}{more}\r\n".encode())
        assert (await reader.readline()).split()[1] == b"503"
        writer.close()
    await gauge.at(stand, 0.5)
    assert by(stand.edge, "edge_requests_total", "status")["503",] == 3


MIB = 2**20
LIMIT = 512 * MIB
NEIGHBOUR = """
import mmap, sys
held = []
print(0, flush=True)
for line in sys.stdin:
    while len(held) < int(line):
        held.append(mmap.mmap(-1, 1 << 20))
        held[-1].write(b"x" * (1 << 20))
    while len(held) > int(line):
        held.pop().close()
    print(len(held), flush=True)
"""


@pytest.fixture
def group() -> Iterator[ControlGroup]:
    """A control group with 512 MiB of memory."""
    with control_group(LIMIT) as made:
        yield made


@asynccontextmanager
async def neighbour(group: ControlGroup) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process in the same group, which holds as many MiB as it is told."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        group.join + NEIGHBOUR,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout
        assert int(await process.stdout.readline()) == 0
        yield process
    finally:
        process.kill()
        await process.wait()


async def fill(other: asyncio.subprocess.Process, held: int, used_share: float) -> int:
    """Has the neighbour, which holds so many MiB, hold what makes the share. How many that is."""
    assert other.stdin
    assert other.stdout
    memory = ContainerMemory(membership=Path(f"/proc/{other.pid}/cgroup"))
    for _ in range(2):  # What the kernel needs for itself comes on top.
        held += round((used_share - memory.used_share()) * LIMIT / MIB)
        other.stdin.write(b"%d\n" % held)
        assert int(await other.stdout.readline()) == held
    return held


async def test_a_process_in_a_full_control_group_refuses_and_lives(
    group: ControlGroup, tmp_path: Path
) -> None:
    """A real process in a real control group refuses while others fill it, and survives. Row 77."""
    async with FakeUpstream() as upstream, neighbour(group) as other:
        upstream.play(fitting)
        config = priced_configuration(upstream.url)
        async with running_server(tmp_path, config, program=group.program("services")) as server:
            assert await asked(server) == (200, None)
            held = await fill(other, 0, (MEMORY_LOW + MEMORY_SHORT) / 2)
            await server.event("memory_stage.started", stage="low")
            assert await asked(server) == (200, "close")
            held = await fill(other, held, (MEMORY_SHORT + MEMORY_CRITICAL) / 2)
            await server.event("memory_stage.started", stage="short")
            assert (await asked(server))[0] == 503
            await fill(other, held, 0.5)
            await server.event("memory_stage.ended", stage="short")
            assert await asked(server) == (200, None)
            async with asyncio.timeout(30):
                while not 0.4 < await used_share(server) < 0.6:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # Nobody tells of it but by answering.


async def used_share(server: Server) -> float:
    """The share of its memory that a process reports as in use."""
    return (await server.samples())["pomogator_memory_used_ratio", frozenset()]


async def asked(server: Server) -> tuple[int, str | None]:
    """The status of a call, and whether its connection is closed."""
    url = f"http://{await server.address('http')}{PATH}"
    headers = {"Authorization": f"Bearer {server.key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(url, json=ASKED) as answer,
    ):
        await answer.read()
        return answer.status, answer.headers.get("Connection")
