"""Faults of the call log's store leave calls and money as they are; a kill loses only late rows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from services.call_log.call_queue import FLUSH_S
from services.storage.postgres import COMMAND_TIMEOUT_S
from tests.stand.billing_stand import (
    COST_NANO,
    NANO,
    USAGE,
    BillingStand,
    billing_stand,
    completion,
)
from tests.stand.call_log import CallLogStand, call_log_stand
from tests.stand.configuration import MODEL, configuration
from tests.stand.databases import frozen_postgres
from tests.stand.upstream import FakeUpstream, json_answer

CALLS = 20


@asynccontextmanager
async def logged_stand(
    tmp_path: Path, postgres_url: str
) -> AsyncIterator[tuple[BillingStand, CallLogStand, str]]:
    """A gateway, its call log in PostgreSQL, and a key with one call that has its row."""
    async with (
        billing_stand(tmp_path, call_log_url=postgres_url) as stand,
        call_log_stand(stand) as log,
    ):
        key = await stand.open()
        await stand.ask(key)
        assert len(await log.all_calls()) == 1
        yield stand, log, key


async def test_a_locked_table_delays_rows_alone(tmp_path: Path, postgres_url: str) -> None:
    """While another session locks the log, calls are answered and charged. Rows follow."""
    async with logged_stand(tmp_path, postgres_url) as (stand, log, key):
        other = await asyncpg.connect(postgres_url)
        async with other.transaction():
            await other.execute("LOCK TABLE calls IN ACCESS EXCLUSIVE MODE")
            answers = [await stand.ask(key) for _ in range(CALLS)]
            assert {answer.status for answer in answers} == {200}
            assert await stand.balance(key) == NANO - (1 + CALLS) * COST_NANO
        await other.close()
        calls = await log.all_calls()
        while len(calls) < 1 + CALLS:
            calls = await log.all_calls()

        assert len({call.hold_id for call in calls}) == 1 + CALLS
        assert sum(call.charge_nano_usd for call in calls) == (1 + CALLS) * COST_NANO


async def test_a_silent_store_delays_no_call(tmp_path: Path) -> None:
    """The log's server accepts connections and never answers. Calls and charges go on."""
    connections: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(
        lambda _, writer: connections.append(writer), "127.0.0.1", 0
    )
    port = silent.sockets[0].getsockname()[1]
    async with billing_stand(
        tmp_path, call_log_url=f"postgresql://log@127.0.0.1:{port}/log?connect_timeout=2"
    ) as stand:
        key = await stand.open()
        answers = [await stand.ask(key) for _ in range(CALLS)]
        assert {answer.status for answer in answers} == {200}
        assert await stand.balance(key) == NANO - CALLS * COST_NANO
        silent.close()
        for writer in connections:
            writer.transport.abort()


async def test_a_frozen_server_delays_rows_alone(tmp_path: Path, postgres_url: str) -> None:
    """While the log's server stands still, calls are answered and charged. Rows follow, once."""
    async with logged_stand(tmp_path, postgres_url) as (stand, log, key):
        with frozen_postgres(postgres_url):
            answers = [await stand.ask(key) for _ in range(CALLS)]
            # Longer than a write of rows waits.
            await asyncio.sleep(COMMAND_TIMEOUT_S + 1)
            answers += [await stand.ask(key) for _ in range(CALLS)]
            assert {answer.status for answer in answers} == {200}
            assert await stand.balance(key) == NANO - (1 + 2 * CALLS) * COST_NANO
        calls = await log.all_calls()
        while len(calls) < 1 + 2 * CALLS:
            calls = await log.all_calls()

        assert len({call.hold_id for call in calls}) == len(calls) == 1 + 2 * CALLS
        assert sum(call.charge_nano_usd for call in calls) == len(calls) * COST_NANO
        counts = await stand.counts()
        assert (counts["calls"], counts["holds_without_call"]) == (1 + 2 * CALLS, 0)


async def test_a_frozen_server_costs_calls_no_further_step(
    tmp_path: Path, postgres_url: str
) -> None:
    """Calls enter and leave as many functions as before, and no thread waits for the log."""
    async with billing_stand(tmp_path, call_log_url=postgres_url) as stand:
        key = await stand.open()

        async def cost() -> tuple[int, int]:
            """Steps of the loop's thread for some calls, and the number of threads after them."""
            steps = 0

            def count(*_: object) -> None:
                nonlocal steps
                steps += 1

            sys.setprofile(count)
            try:
                for _ in range(5 * CALLS):
                    await stand.ask(key)
            finally:
                sys.setprofile(None)
            return steps, threading.active_count()

        await cost()
        await asyncio.sleep(2 * FLUSH_S)  # The rows are written.
        steps, threads = await cost()
        await asyncio.sleep(2 * FLUSH_S)
        with frozen_postgres(postgres_url):
            await cost()
            await asyncio.sleep(2 * FLUSH_S)  # A batch waits for the server, and more behind it.
            frozen_steps, frozen_threads = await cost()

        assert 0 < frozen_steps <= 1.05 * steps
        assert frozen_threads <= threads


@asynccontextmanager
async def server(directory: Path) -> AsyncIterator[tuple[Process, str]]:
    """`pomogator serve` in a process of its own, and its URL."""
    command = ("serve", "--print-first-key", "--config", str(directory / "pomogator.toml"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", *command),
        *("--state", directory / "state", "--rest", "127.0.0.1:0"),
        *("--grpc", f"unix:{directory / 'grpc.sock'}"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        assert process.stderr is not None
        url = ""
        async for line in process.stderr:
            said = json.loads(line)
            if said["event"] == "server.started" and said["protocol"] == "http":
                url = f"http://{said['address']}"
                break
        assert url
        yield process, url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


LOST_S = 2.0
"""Age of the oldest row that a kill may lose: a second, and as much for a slow machine."""


async def first_key(process: Process) -> str:
    """Return the key that the process shows at its first start."""
    assert process.stdout is not None
    async for line in process.stdout:
        if line.strip().startswith(b"sk-pg-"):
            return line.decode().strip()
    raise AssertionError("it shows no key")


async def ask(http: aiohttp.ClientSession, url: str, number: int) -> None:
    """Make a call with a request ID of its own."""
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"x-request-id": f"call-{number}"}
    async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == 200, await response.text()


async def test_a_kill_loses_the_rows_of_the_last_second(tmp_path: Path) -> None:
    """Earlier rows are there, in the order of their calls, and the ledger agrees with them."""
    ended_at: list[float] = []
    async with FakeUpstream() as upstream:
        upstream.play(lambda _: [json_answer(completion(USAGE))])
        (tmp_path / "pomogator.toml").write_text(
            configuration(upstream.url, prices={"request_usd": 0.001})
        )
        async with server(tmp_path) as (process, url):
            headers = {"Authorization": f"Bearer {await first_key(process)}"}
            async with aiohttp.ClientSession(headers=headers) as http:
                while not ended_at or time.monotonic() < ended_at[0] + 2 * LOST_S:
                    await ask(http, url, len(ended_at))
                    ended_at.append(time.monotonic())
                    await asyncio.sleep(0.02)  # Calls of all the time before the kill.
                process.kill()
                await process.wait()
                killed_at = time.monotonic()
        async with (
            server(tmp_path) as (_, url),
            aiohttp.ClientSession(headers=headers) as http,
            http.get(f"{url}/v1/calls", params={"page_size": 1000}) as response,
        ):
            calls = (await response.json())["calls"]
    assert {call["request_id"] for call in calls} == {f"call-{n}" for n in range(len(calls))}
    assert all(killed_at - end < LOST_S for end in ended_at[len(calls) :])

    counts = await verified(tmp_path / "state")
    assert counts["calls"] == len(calls)
    assert counts["calls"] + counts["holds_without_call"] == sum(
        counts[state] for state in ("settled", "voided", "recovered")
    )


async def verified(state: Path) -> dict[str, int]:
    """Return what `pomogator ledger verify` counts in a state without findings."""
    command = ("-m", "services", "ledger", "verify", "--state", str(state))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    return {name: int(count) for name, count in re.findall(r"(\w+): (\d+)", out.decode())}
