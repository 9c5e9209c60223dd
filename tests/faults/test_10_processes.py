"""b.10: processes that are killed, frozen or told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from services.telemetry.supervisor import FAILURES_MAX
from tests.end_to_end import fleet
from tests.end_to_end.process import Server, serving
from tests.fakes.upstream import STALL, FakeUpstream
from tests.faults.world import BEGIN, END, FINE, MODEL, PATH

FILE = """
[[channels]]
name = "a"
dialect = "openai"
base_url = "{url}"
models = {{ "{model}" = "m" }}

[[models]]
name = "{model}"
prompt_usd_per_mtok = 1
completion_usd_per_mtok = 2
"""
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
SHUTDOWN, GONE = "server_shutting_down", "service_unavailable"


@asynccontextmanager
async def asking(url: str, key: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream that has begun."""
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as http, http.post(url, json=ASKED) as answer:
        assert answer.status == 200
        await answer.content.readuntil(b"canary-answer-")
        yield answer


async def how_it_ends(answer: aiohttp.ClientResponse) -> str:
    """The code of the error that ends a stream, before its `[DONE]`."""
    *_, last, done, empty = (await answer.text()).split("\n\n")
    assert (done, empty) == ("data: [DONE]", "")
    return str(json.loads(last.removeprefix("data: "))["error"]["code"])


@asynccontextmanager
async def apart(folder: Path, upstream: FakeUpstream) -> AsyncIterator[tuple[Server, Server, str]]:
    """A service and an edge, each a process; and the edge's URL."""
    (folder / "edge").mkdir()
    config = FILE.format(url=upstream.url, model=MODEL)
    async with serving(folder, config, only="grpc") as service:
        heard = [line for line in service.lines if line.get("protocol") == "grpc"]
        (target,) = {line["address"] for line in heard if ":/" not in line["address"]}
        async with serving(folder / "edge", config, "--target", target, only="rest") as edge:
            yield service, edge, f"http://{await edge.address('http')}{PATH}"


async def test_093_the_service_is_killed(tmp_path: Path) -> None:
    """The caller is told at once; the next start settles what the dead one held."""
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, STALL])
        async with apart(tmp_path, upstream) as (service, _, url), asking(url, service.key) as got:
            service.tell(signal.SIGKILL)
            assert await how_it_ends(got) == GONE
            await asyncio.wait_for(upstream.requests[0].left.wait(), 5)
    await holds_are_closed(tmp_path)


async def holds_are_closed(folder: Path) -> None:
    """A new process recovers all that others have left, and its books are right."""
    again = fleet.service(folder / "var", folder / "pomogator.toml")
    await again.start()
    try:
        async with fleet.operators(folder / "var") as book, asyncio.timeout(60):
            while (result := await book.verify()).counts.get("held", 0):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert list(result.findings) == []
    finally:
        await again.end()


async def test_094_the_edge_is_killed(tmp_path: Path) -> None:
    """The service sees its caller leave: the provider is left, and the call is settled."""
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, STALL])
        async with apart(tmp_path, upstream) as (service, edge, url):
            try:
                async with asking(url, service.key):
                    edge.tell(signal.SIGKILL)
                    await asyncio.wait_for(upstream.requests[0].left.wait(), 5)
            except aiohttp.ClientError:
                pass
            line = await service.event("call.ended", end="client_gone")
            assert line["charge_nano"] > 0


async def test_095_the_service_is_frozen(tmp_path: Path) -> None:
    """The caller is told within the time that pings take; the service, thawed, settles once."""
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, STALL])
        async with apart(tmp_path, upstream) as (service, _, url), asking(url, service.key) as got:
            service.tell(signal.SIGSTOP)
            try:
                async with asyncio.timeout(60):
                    assert await how_it_ends(got) == GONE
            finally:
                service.tell(signal.SIGCONT)
            line = await service.event("call.ended")
            assert line["charge_nano"] > 0
            assert sum(line["event"] == "call.ended" for line in service.lines) == 1


async def test_096_lingers_then_drains(tmp_path: Path) -> None:
    """Told to stop: not ready at once, calls are taken a moment longer, streams end in peace."""
    goes_on = asyncio.Event()
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END], FINE)
        config = FILE.format(url=upstream.url, model=MODEL)
        async with serving(tmp_path, config, "--linger", "3") as server:
            base = f"http://{await server.address('http')}"
            async with asking(base + PATH, server.key) as running:
                server.tell(signal.SIGTERM)
                await server.event("server.stopping")
                async with aiohttp.ClientSession(base) as http, http.get("/readyz") as ready:
                    assert ready.status == 503
                async with asking(base + PATH, server.key) as late:
                    assert (await late.text()).endswith("data: [DONE]\n\n")
                goes_on.set()
                assert (await running.text()).endswith("data: [DONE]\n\n")
            assert await server.ended() == 0


async def test_096_does_not_drain_for_ever(tmp_path: Path) -> None:
    """A stream that does not end is ended, with an error; a second signal changes nothing."""
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, STALL])
        config = FILE.format(url=upstream.url, model=MODEL)
        async with serving(tmp_path, config, "--linger", "0", "--drain", "1") as server:
            url = f"http://{await server.address('http')}{PATH}"
            async with asking(url, server.key) as answer:
                server.tell(signal.SIGTERM)
                await server.event("server.stopping")
                server.tell(signal.SIGTERM)
                assert await how_it_ends(answer) == SHUTDOWN
            assert await server.ended() == 0
            line = await server.event("call.ended")
            assert line["charge_nano"] > 0
    await holds_are_closed(tmp_path)


@pytest.mark.parametrize(("failures", "code"), [(FAILURES_MAX - 1, 0), (FAILURES_MAX, 1)])
async def test_102_a_background_task_fails(tmp_path: Path, failures: int, code: int) -> None:
    """It is begun again, and counted; when it cannot be kept up the process ends in good order."""
    goes_on = asyncio.Event()
    program = (sys.executable, Path(__file__).parent / "programs" / "broken_beat.py")
    fails = tmp_path / "fails"
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END], FINE)
        config = FILE.format(url=upstream.url, model=MODEL)
        async with serving(tmp_path, config, program=program, env={"FAILS": str(fails)}) as server:
            url = f"http://{await server.address('http')}{PATH}"
            async with asking(url, server.key) as running:
                fails.write_text(str(failures))
                await server.event("task.failed", task="ledger beat", failures=failures)
                if code:
                    await server.event("server.stopping")
                else:
                    async with asking(url, server.key) as other:
                        assert (await other.text()).endswith("data: [DONE]\n\n")
                    labels = frozenset({("task", "ledger beat")})
                    samples = await server.samples()
                    assert samples["pomogator_task_failures_total", labels] == failures
                goes_on.set()
                assert (await running.text()).endswith("data: [DONE]\n\n")
            if not code:
                server.tell(signal.SIGTERM)
            assert await server.ended() == code
            assert "sk-canary" not in server.log
    await holds_are_closed(tmp_path)
