"""Edge workers: several edges on one port, in processes that the service starts and replaces."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.stand.configuration import configuration
from tests.stand.polling import until
from tests.stand.process import Server
from tests.stand.servers import STOP_SOON, running_server
from tests.stand.shell import Shell, refused_start
from tests.stand.upstream import LAST_CHUNK, SSE_HEAD, FakeUpstream, json_answer, sse

WORKERS = 2
BODY = {"model": "house/model", "messages": [{"role": "user", "content": "Hi"}]}
ANSWER = {
    "id": "c",
    "model": "m",
    "choices": [{"index": 0, "message": {"content": "Hi."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
SECRET = "a provider's key"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as running:
        yield running


@pytest.fixture
async def server(tmp_path: Path, upstream: FakeUpstream) -> AsyncIterator[Server]:
    async with running_server(
        *(tmp_path, configuration(upstream.url), "--workers", str(WORKERS), *STOP_SOON),
        env={"OPENAI_API_KEY": SECRET, "POMOGATOR_TARGET_CA": "/nowhere"},
    ) as running:
        await until(lambda: len(started(running)) == WORKERS)
        yield running


def started(server: Server) -> list[object]:
    """Return the addresses that edges have logged."""
    return [line["address"] for line in server.lines if line.get("protocol") == "http"]


def children(server: Server) -> set[int]:
    """Return the IDs of the workers' processes."""
    return {int(child) for child in content(server.pid, f"task/{server.pid}/children").split()}


def content(process: int, file: str) -> str:
    """Return the file of a process in `/proc`."""
    return Path(f"/proc/{process}/{file}").read_text()


def exists(process: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{process}").exists()


async def ask(server: Server) -> int:
    """Return the status of a call over a connection of its own."""
    headers = {"Authorization": f"Bearer {server.key}"}
    url = f"http://{await server.address('http')}/v1/chat/completions"
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(url, json=BODY) as answer,
    ):
        await answer.read()
        return answer.status


async def test_workers_share_one_port(server: Server, upstream: FakeUpstream) -> None:
    """All answer at one address, and all take calls."""
    upstream.play([json_answer(ANSWER)])

    assert len(set(started(server))) == 1
    assert await asyncio.gather(*(ask(server) for _ in range(40))) == [200] * 40
    ended = [line for line in server.lines if line["event"] == "request.ended"]
    assert len(ended) == 40
    assert len(children(server)) == WORKERS
    for child in children(server):
        assert worked_s(child) > 0


def worked_s(process: int) -> float:
    """Return the CPU time of a process in calls to the system, such as those that read requests."""
    return int(content(process, "stat").rpartition(")")[2].split()[12])


async def test_workers_hold_no_secret(server: Server) -> None:
    """They get neither the keys of providers nor flags that are given as variables.

    The secret of console sessions is the same in all of them.
    """
    console_secrets = set()
    for child in children(server):
        environment = content(child, "environ")
        assert SECRET not in environment
        (own,) = (each for each in environment.split("\0") if each.startswith("POMOGATOR_"))
        assert own.startswith("POMOGATOR_CONSOLE_SECRET=")
        console_secrets.add(own)
    assert len(console_secrets) == 1


async def test_a_killed_worker_is_replaced(server: Server, upstream: FakeUpstream) -> None:
    """The other one takes new calls in the meantime."""
    upstream.play([json_answer(ANSWER)])
    before = children(server)
    os.kill(min(before), signal.SIGKILL)

    assert (await server.event("worker.exited"))["exit_code"] == -signal.SIGKILL
    assert [await ask(server) for _ in range(10)] == [200] * 10
    await until(lambda: len(started(server)) == WORKERS + 1)
    assert len(children(server)) == WORKERS
    assert len(children(server) & before) == WORKERS - 1
    assert [await ask(server) for _ in range(10)] == [200] * 10


async def test_a_shutdown_lets_streams_end(server: Server, upstream: FakeUpstream) -> None:
    """Workers drain before the service does, and none stays behind."""
    goes_on = asyncio.Event()
    first = {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}
    last = {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]}
    upstream.play([SSE_HEAD + sse(first), goes_on, sse(last, "[DONE]") + LAST_CHUNK])
    headers = {"Authorization": f"Bearer {server.key}"}
    url = f"http://{await server.address('http')}/v1/chat/completions"
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(url, json={**BODY, "stream": True}) as answer,
    ):
        text = await answer.content.readuntil(b"Hel")
        processes = children(server)
        server.send_signal(signal.SIGTERM)
        await server.event("shutdown.started")
        goes_on.set()
        text += await answer.read()

    assert b"[DONE]" in text
    assert b"error" not in text
    await server.ended()
    assert server.exit_code == 0
    assert not any(map(exists, processes))


async def test_workers_end_with_a_service_that_is_killed(server: Server) -> None:
    """They hold the port no longer than their calls last."""
    processes = children(server)
    server.send_signal(signal.SIGKILL)
    await server.ended()
    await until(lambda: not any(map(exists, processes)))


async def test_workers_need_a_service_beside_them(tmp_path: Path) -> None:
    """An edge alone starts no edges."""
    log = await refused_start(tmp_path, "--workers", "2", "--only", "rest")
    assert "--workers" in log


async def test_an_address_that_is_taken_is_refused(tmp_path: Path) -> None:
    """Another program, such as another gateway, has it and does not share it."""
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as listener:
        host, port = listener.sockets[0].getsockname()
        (tmp_path / "pomogator.toml").write_text("defaults = true")
        output = await Shell(tmp_path).run(
            *("serve", "--workers", "2", "--rest", f"{host}:{port}"),
            *("--grpc", "127.0.0.1:0", "--metrics", ""),
            code=1,
        )
        assert f"cannot listen on {host}:{port}" in output
