"""b.9: disks that are full, or do not keep what they are given."""

from __future__ import annotations

import asyncio
import resource
import shutil
import signal
from pathlib import Path

import aiohttp
import pytest

from services.storage.sqlite_file import FILE
from tests.end_to_end.process import Server, serving
from tests.fakes.upstream import FakeUpstream
from tests.faults.processes import ASKED, CONFIG, asking, holds_are_closed
from tests.faults.world import BEGIN, CHARGE, END, FINE, MODEL, PATH

COMPILER = shutil.which("cc") or shutil.which("gcc")


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


async def test_084_the_disk_is_full(tmp_path: Path) -> None:
    """Nothing new is begun, what runs is answered, and settled once as soon as there is room."""
    goes_on = asyncio.Event()
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END], FINE)
        async with serving(tmp_path, CONFIG.format(url=upstream.url, model=MODEL)) as server:
            url = f"http://{await server.address('http')}{PATH}"
            async with asking(url, server.key) as running:
                log = tmp_path / "var" / f"{FILE}-wal"
                unlimited = server.limit(resource.RLIMIT_FSIZE, log.stat().st_size)
                goes_on.set()
                assert (await running.text()).endswith("data: [DONE]\n\n")
            await readiness(server, 503)
            assert await refused(server) == "storage_unavailable"
            assert len(upstream.requests) == 1
            assert await gauge(server, "outbox_depth") == 1
            failures = [line for line in server.lines if line["event"] == "storage.failed"]
            assert len(failures) == 1

            server.limit(resource.RLIMIT_FSIZE, unlimited)
            await readiness(server, 200)
            async with asking(url, server.key) as again:
                assert (await again.text()).endswith("data: [DONE]\n\n")
            await server.event("storage.recovered")
            server.tell(signal.SIGTERM)
            assert await server.ended() == 0
            charges = [
                line["charge_nano"] for line in server.lines if line["event"] == "call.ended"
            ]
            assert sorted(charges) == [0, CHARGE, CHARGE]
    assert (await holds_are_closed(tmp_path))["settled"] == 2


@pytest.mark.skipif(COMPILER is None, reason="what fails fsync has to be compiled")
async def test_085_the_disk_does_not_keep_it(tmp_path: Path) -> None:
    """After a failed fsync nobody knows what the disk has: nothing is admitted until a restart."""
    shim, fails = tmp_path / "fsync.so", tmp_path / "fails"
    source = Path(__file__).parent / "programs" / "fsync.c"
    compiling = await asyncio.create_subprocess_exec(
        str(COMPILER), "-shared", "-fPIC", "-o", shim, source
    )
    assert await compiling.wait() == 0
    goes_on = asyncio.Event()
    env = {"LD_PRELOAD": str(shim), "FSYNC_FAILS": str(fails)}
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END], FINE)
        config = CONFIG.format(url=upstream.url, model=MODEL)
        async with serving(tmp_path, config, env=env) as server:
            url = f"http://{await server.address('http')}{PATH}"
            async with asking(url, server.key) as running:
                fails.touch()
                goes_on.set()
                assert (await running.text()).endswith("data: [DONE]\n\n")
            line = await server.event("storage.failed")
            assert line["kind"] == "SQLITE_IOERR_FSYNC"
            await readiness(server, 503)
            fails.unlink()
            assert await refused(server) == "storage_unavailable"
            await readiness(server, 503)
            assert len(upstream.requests) == 1
            server.tell(signal.SIGTERM)
            await server.ended()
    await holds_are_closed(tmp_path)
