"""Bodies that would fill the memory of a small container, in a real control group."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from services.common.addresses import split_address
from services.common.key_format import new_secret
from tests.faults.fault_stand import MODEL, PATH, fitting
from tests.faults.processes import priced_configuration
from tests.faults.test_memory import LIMIT, MIB, asked
from tests.stand.control_group import control_group
from tests.stand.process import POMOGATOR, Server
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

NESTED = b'{"a":' + b"[" * 10 * MIB + b"]" * 10 * MIB + b"}"
ORDINARY = json.dumps(
    {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "word " * 6 * MIB}]}
).encode()


def limited(*parts: str) -> pytest.MarkDecorator:
    """Run a test with little memory for the whole gateway, and by night for each of these parts."""
    apart = [pytest.param(part, marks=pytest.mark.nightly) for part in parts]
    return pytest.mark.parametrize("server", ["whole", *apart], indirect=True)


@pytest.fixture
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """A gateway whose limited part has 512 MiB, and has to live through the test."""
    part = request.param
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.play(fitting)
        config = priced_configuration(upstream.url)
        group = stack.enter_context(control_group(LIMIT))
        inside = group.program("services")
        if part == "whole":
            serving = running_server(tmp_path, config, program=inside)
            running = await stack.enter_async_context(serving)
        else:
            running = await stack.enter_async_context(_apart(tmp_path, config, inside, part))
        assert await asked(running) == (200, None)
        yield running
        async with asyncio.timeout(60):
            while (await asked(running))[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # Memory may be short for a moment.
        assert group.kills == 0


@asynccontextmanager
async def _apart(
    folder: Path, config: str, inside: Sequence[str], part: str
) -> AsyncIterator[Server]:
    """The edge, which has the key, and its service. That part is in the group."""
    programs = {"edge": POMOGATOR, "service": POMOGATOR, part: inside}
    async with running_server(folder, config, only="grpc", program=programs["service"]) as service:
        target = ("--target", await service.tcp_address())
        async with running_server(
            folder, config, *target, only="rest", program=programs["edge"]
        ) as edge:
            edge.key = service.key
            yield edge


async def send(
    server: Server, sent: bytes, length: int, key: str = ""
) -> tuple[int, asyncio.StreamWriter]:
    """Send the beginning of a body, or all. Return the status, or 0 without one in 4 seconds."""
    reader, writer = await asyncio.open_connection(*split_address(await server.address("http")))
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key or server.key}\r\n"
    writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode() + sent)
    try:
        async with asyncio.timeout(4 if len(sent) < length else 60):
            return int((await reader.readline()).split()[1]), writer
    except TimeoutError:
        return 0, writer
    finally:
        if len(sent) == length:
            writer.transport.abort()


@limited("edge", "service")
async def test_a_nested_body_is_refused_in_little_memory(server: Server) -> None:
    """20 MiB of brackets are refused, with a key that exists or not. Row 25."""
    assert (await send(server, NESTED, len(NESTED)))[0] == 400
    assert (await send(server, NESTED, len(NESTED), new_secret()))[0] == 401


@limited("edge")  # A service gets bodies that are whole.
async def test_unfinished_bodies_are_refused_beyond_the_budget(server: Server) -> None:
    """48 bodies of 31 MiB that are not finished leave memory for others. Row 25."""
    sent = ORDINARY[: 20 * MIB]
    tasks = [send(server, sent, 31 * MIB) for _ in range(48)]
    opened = await asyncio.gather(*tasks)
    try:
        assert {status for status, _ in opened} <= {0, 503}
        assert 503 in {status for status, _ in opened}
        assert (await asked(server))[0] == 200
    finally:
        for _, writer in opened:
            writer.transport.abort()


@limited("edge", "service")
async def test_large_bodies_at_once_are_served_or_refused(server: Server) -> None:
    """Some of 16 bodies of 30 MiB are served, and the others get 503. Row 25."""
    statuses = [
        status
        for status, _ in await asyncio.gather(
            *(send(server, ORDINARY, len(ORDINARY)) for _ in range(16))
        )
    ]
    assert set(statuses) <= {200, 503}
    assert 200 in statuses
