"""Disks that are full, and files that are locked, damaged or not kept."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from services.storage import sqlite_file
from services.storage.schema import VERSION
from services.storage.sqlite_file import FILE
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import BEGIN, CHARGE, END, FINE, PATH, TEXT
from tests.faults.preload import compiled, needs_compiler
from tests.faults.processes import ASKED, asking, holds_are_closed, priced_configuration
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.shell import refused_start
from tests.stand.upstream import FakeUpstream


async def refused(server: Server) -> str:
    """The code with which a new call is refused, and nothing else may happen to it."""
    base = f"http://{await server.address('http')}"
    headers = {"Authorization": f"Bearer {server.key}"}
    async with (
        aiohttp.ClientSession(base, headers=headers) as http,
        http.post(PATH, json=ASKED) as answer,
    ):
        assert answer.status == 503
        assert 1 <= float(answer.headers["Retry-After"]) <= 5
        return str((await answer.json())["error"]["code"])


async def readiness(server: Server, status: int) -> None:
    """Waits until readiness is so. Liveness is always on."""
    async with aiohttp.ClientSession(f"http://{await server.address('http')}") as http:
        async with asyncio.timeout(20):
            while True:
                async with http.get("/readyz") as ready, http.get("/healthz") as alive:
                    assert alive.status == 200
                    if ready.status == status:
                        return
                await asyncio.sleep(0.05)  # Nobody tells of it but by answering.


async def gauge(server: Server, name: str) -> float:
    """A metric without labels."""
    return (await server.samples())[f"pomogator_{name}", frozenset()]


async def test_a_full_disk_stops_new_calls_and_settles_running_ones(tmp_path: Path) -> None:
    """No call is begun; running ones are answered, and settled once there is space. Row 84."""
    goes_on = asyncio.Event()
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END], FINE)
        async with running_server(tmp_path, priced_configuration(upstream.url)) as server:
            url = f"http://{await server.address('http')}{PATH}"
            async with asking(url, server.key) as running:
                log = tmp_path / "var" / f"{FILE}-wal"
                unlimited = server.set_limit(resource.RLIMIT_FSIZE, log.stat().st_size)
                goes_on.set()
                assert (await running.text()).endswith("data: [DONE]\n\n")
            await readiness(server, 503)
            assert await refused(server) == "storage_unavailable"
            assert len(upstream.requests) == 1
            assert await gauge(server, "outbox_depth") == 1
            failures = [line for line in server.lines if line["event"] == "storage.failed"]
            assert len(failures) == 1

            server.set_limit(resource.RLIMIT_FSIZE, unlimited)
            await readiness(server, 200)
            async with asking(url, server.key) as again:
                assert (await again.text()).endswith("data: [DONE]\n\n")
            await server.event("storage.recovered")
            server.send_signal(signal.SIGTERM)
            assert await server.ended() == 0
            charges = [
                line["charge_nano_usd"] for line in server.lines if line["event"] == "call.ended"
            ]
            assert sorted(charges) == [0, CHARGE, CHARGE]
    assert (await holds_are_closed(tmp_path))["settled"] == 2


@needs_compiler
async def test_a_failed_fsync_stops_admission_until_a_restart(tmp_path: Path) -> None:
    """After a failed fsync the disk's content is unknown: nothing is admitted until a restart.

    Row 85.
    """
    fails = tmp_path / "fails"
    goes_on = asyncio.Event()
    env = {"LD_PRELOAD": str(await compiled("fsync", tmp_path)), "FSYNC_FAILS": str(fails)}
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END], FINE)
        config = priced_configuration(upstream.url)
        async with running_server(tmp_path, config, env=env) as server:
            url = f"http://{await server.address('http')}{PATH}"
            async with asking(url, server.key) as running:
                fails.touch()
                goes_on.set()
                assert (await running.text()).endswith("data: [DONE]\n\n")
            line = await server.event("storage.failed")
            assert line["reason"] == "SQLITE_IOERR_FSYNC"
            await readiness(server, 503)
            fails.unlink()
            assert await refused(server) == "storage_unavailable"
            await readiness(server, 503)
            assert len(upstream.requests) == 1
            server.send_signal(signal.SIGTERM)
            await server.ended()
    await holds_are_closed(tmp_path)


@pytest.mark.parametrize("is_long", [False, True])
async def test_calls_go_on_while_a_file_is_locked_then_503(
    open_stand: OpenStand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_long: bool
) -> None:
    """A backup's lock stops no call; a long one makes them 503. Each is charged once. Row 83."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.1 if is_long else 2.0)
    stand = await open_stand()
    stand.errors |= {"storage.failed"} if is_long else set()
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END], FINE)
    async with stand.post() as answer:
        await answer.content.readuntil(b"canary-answer-")
        stranger = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        during = await stand.ask()
        goes_on.set()
        reply = await stand.read(answer)
        if is_long:
            async with asyncio.timeout(5):
                while not stand.log.of("storage.failed"):  # noqa: ASYNC110 - only the log tells
                    await asyncio.sleep(0.01)
            refused = await stand.ask()
            assert (refused.status, refused.code) == (503, "storage_unavailable")
            assert 1 <= float(refused.headers["Retry-After"]) <= 5
        stranger.close()

    assert (reply.finishes, reply.events[-1]) == (["stop"], "[DONE]")
    assert during.content == TEXT
    calls = 2
    assert len(stand.first.requests) == calls
    assert await stand.charged() == (calls, calls * CHARGE)


@pytest.mark.parametrize(
    ("statement", "at", "reason"),
    [
        (f"PRAGMA user_version = {VERSION + 1}", 0, f"schema version {VERSION + 1}"),
        ("DROP TABLE keys", 0, "do not match any schema version"),
        ("", 4096, "damaged"),
        ("", 1, "not a database"),
    ],
)
async def test_a_damaged_or_newer_file_is_left_as_it_is(
    tmp_path: Path, statement: str, at: int, reason: str
) -> None:
    """Damaged, or of another version: the process says so in one line and does not touch it.

    Row 87.
    """
    config = priced_configuration("http://127.0.0.1:9")
    async with running_server(tmp_path, config) as server:
        server.send_signal(signal.SIGTERM)
        assert await server.ended() == 0
    file = tmp_path / "var" / FILE
    if statement:
        with closing(sqlite3.connect(file, isolation_level=None)) as raw:
            raw.execute(statement)
    if at:
        whole = file.read_bytes()
        file.write_bytes(whole[:at] + b"\xff" * 4096 + whole[at + 4096 :])
    before = file.read_bytes()

    log = await refused_start(file.parent, "--config", tmp_path / "pomogator.toml")

    assert reason in log.splitlines()[-1]
    assert FILE in log.splitlines()[-1]
    assert file.read_bytes() == before
