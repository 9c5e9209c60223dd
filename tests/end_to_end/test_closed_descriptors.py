"""Processes that are started without standard input, output or error."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from tests.faults.fault_stand import PATH, TEXT, fitting
from tests.faults.processes import ASKED, priced_configuration
from tests.stand.ports import free_port
from tests.stand.process import GATEWAY, POMOGATOR, Process
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

SHELL = ("/bin/sh", "-c", 'shut=$1; shift; eval "exec $shut"; exec "$@"', "sh")
"""Closes descriptors, then runs a command in its place."""

CLOSED = [
    *(pytest.param((number,), marks=pytest.mark.nightly) for number in (0, 1)),
    (2,),
    (0, 1, 2),
]


def without(descriptors: Sequence[int], *command: object) -> Process:
    """A command whose descriptors are closed when it starts."""
    return Process(*SHELL, " ".join(f"{number}>&-" for number in descriptors), *command)


async def answered(port: int, key: str) -> int:
    """The status of a call, once the server takes connections."""
    url = f"http://127.0.0.1:{port}{PATH}"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        while True:
            try:
                async with http.post(url, json={**ASKED, "stream": False}) as answer:
                    if answer.status == 200:
                        assert TEXT in await answer.text()
                    return answer.status
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("descriptors", CLOSED, ids=str)
async def test_a_server_runs_without_standard_descriptors(
    tmp_path: Path, descriptors: Sequence[int]
) -> None:
    """It serves calls, and its files have no log lines: a later process reads them."""
    files = ("--config", tmp_path / "pomogator.toml", "--state", tmp_path / "var")
    async with FakeUpstream() as upstream:
        upstream.play(fitting)
        async with running_server(tmp_path, priced_configuration(upstream.url)) as first:
            key = first.key
        port = free_port()
        server = without(
            descriptors,
            *(*POMOGATOR, "serve", *files, "--metrics", "", "--shutdown-delay", "0"),
            *("--rest", f"127.0.0.1:{port}", "--grpc", f"unix:{tmp_path}/grpc.sock"),
        )
        await server.spawn()
        try:
            assert await answered(port, key) == 200
            server.send_signal(signal.SIGTERM)
            assert await server.ended() == 0
        finally:
            await server.stop()
    verified = Process(*POMOGATOR, "ledger", "verify", *files)
    await verified.spawn()
    assert await verified.ended() == 0


async def test_an_edge_runs_without_standard_descriptors(tmp_path: Path) -> None:
    """It answers that its service cannot be reached."""
    port = free_port()
    edge = without(
        (0, 1, 2),
        *(*GATEWAY, "--target", f"unix:{tmp_path}/none.sock", "--metrics", ""),
        *("--rest", f"127.0.0.1:{port}"),
    )
    await edge.spawn()
    try:
        assert await answered(port, "sk") == 401
        edge.send_signal(signal.SIGTERM)
        assert await edge.ended() == 0
    finally:
        await edge.stop()
