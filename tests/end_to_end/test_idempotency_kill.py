"""A process that is killed in the middle of a call with an idempotency key."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.stand.configuration import configuration
from tests.stand.held_provider import (
    ASKED,
    CHARGE_NANO_USD,
    NAMED,
    PATH,
    HeldProvider,
    audited_charges,
)
from tests.stand.response import REPLAYED
from tests.stand.upstream import FakeUpstream


@asynccontextmanager
async def server(directory: Path) -> AsyncIterator[tuple[Process, str]]:
    """`pomogator serve` in a process of its own, and its URL. Its state may have had another."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "services",
            "serve",
            "--print-first-key",
            "--config",
            directory / "pomogator.toml",
        ),
        *("--state", directory / "state", "--rest", "127.0.0.1:0"),
        *("--grpc", f"unix:{directory / 'grpc.sock'}"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process, await _url(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _url(process: Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        said = json.loads(line)
        if said["event"] == "server.started" and said["protocol"] == "http":
            return f"http://{said['address']}"
    raise AssertionError("it does not serve")


async def first_key(process: Process) -> str:
    """The key that it shows at its first start."""
    assert process.stdout is not None
    async for line in process.stdout:
        if line.strip().startswith(b"sk-pg-"):
            return line.decode().strip()
    raise AssertionError("it shows no key")


async def test_the_next_process_makes_a_killed_call_again(tmp_path: Path) -> None:
    """A retry gets an answer; nothing is charged twice, and no hold stays."""
    provider = HeldProvider()
    async with FakeUpstream() as upstream, aiohttp.ClientSession() as http:
        upstream.play(provider)
        (tmp_path / "pomogator.toml").write_text(
            configuration(upstream.url, prices={"request_usd": 0.001})
        )
        provider.goes_on.clear()
        async with server(tmp_path) as (process, url):
            headers = {**NAMED, "Authorization": f"Bearer {await first_key(process)}"}
            lost = asyncio.create_task(_ask(http, url, headers))
            await upstream.request(0)
            process.kill()
            with pytest.raises(aiohttp.ClientError):
                await lost

        provider.goes_on.set()
        async with server(tmp_path) as (_, url):
            assert await _ask(http, url, headers) == (200, None)
            assert await _ask(http, url, headers) == (200, "true")

    assert len(upstream.requests) == 2
    assert await audited_charges(tmp_path / "state") == {"voided": 0, "settled": CHARGE_NANO_USD}


async def _ask(
    http: aiohttp.ClientSession, url: str, headers: dict[str, str]
) -> tuple[int, str | None]:
    """The status, and whether the answer says that it was given before."""
    async with http.post(url + PATH, json=ASKED, headers=headers) as answer:
        await answer.read()
        return answer.status, answer.headers.get(REPLAYED[0])
