"""b.10: processes that are killed, frozen or told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from services.telemetry.supervisor import FAILURES_MAX
from tests.end_to_end.process import serving
from tests.fakes.upstream import STALL, FakeUpstream
from tests.faults.processes import (
    CONFIG,
    GONE,
    SHUTDOWN,
    apart,
    asking,
    holds_are_closed,
    how_it_ends,
)
from tests.faults.world import BEGIN, END, FINE, MODEL, PATH


async def test_093_the_service_is_killed(tmp_path: Path) -> None:
    """The caller is told at once; the next start settles what the dead one held."""
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, STALL])
        async with apart(tmp_path, upstream) as (service, _, url), asking(url, service.key) as got:
            service.tell(signal.SIGKILL)
            assert await how_it_ends(got) == GONE
            await asyncio.wait_for(upstream.requests[0].left.wait(), 5)
    await holds_are_closed(tmp_path)


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
        config = CONFIG.format(url=upstream.url, model=MODEL)
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
        config = CONFIG.format(url=upstream.url, model=MODEL)
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
        config = CONFIG.format(url=upstream.url, model=MODEL)
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
