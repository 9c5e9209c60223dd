"""Bodies that would fill the memory of a small container, in a real control group."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.addresses import split_address
from services.common.key_format import new_secret
from tests.faults.fault_stand import MODEL, PATH, fitting
from tests.faults.processes import priced_configuration
from tests.faults.test_memory import GATEWAY, MIB, asked, group
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

__all__ = ["group"]

NESTED = b'{"a":' + b"[" * 10 * MIB + b"]" * 10 * MIB + b"}"
ORDINARY = json.dumps(
    {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "word " * 6 * MIB}]}
).encode()


@pytest.fixture
async def server(group: Path, tmp_path: Path) -> AsyncIterator[Server]:
    """A gateway with 512 MiB of memory, which has to live through the test."""
    async with FakeUpstream() as upstream:
        upstream.play(fitting)
        config = priced_configuration(upstream.url)
        program = (sys.executable, "-c", GATEWAY.format(group=group))
        async with running_server(tmp_path, config, program=program) as running:
            assert await asked(running) == (200, None)
            yield running
            assert (await asked(running))[0] == 200


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


async def test_a_nested_body_is_refused_in_little_memory(server: Server) -> None:
    """20 MiB of brackets are refused, with a key that exists or not. Row 25."""
    assert (await send(server, NESTED, len(NESTED)))[0] == 400
    assert (await send(server, NESTED, len(NESTED), new_secret()))[0] == 401


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


async def test_large_bodies_at_once_are_served_or_refused(server: Server) -> None:
    """Of 16 bodies of 30 MiB some are served, and the others get 503. Row 25."""
    statuses = [
        status
        for status, _ in await asyncio.gather(
            *(send(server, ORDINARY, len(ORDINARY)) for _ in range(16))
        )
    ]
    assert set(statuses) <= {200, 503}
    assert 200 in statuses
