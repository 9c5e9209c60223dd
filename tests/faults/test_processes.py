"""Processes that are killed, frozen or stopped."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack, suppress
from io import BytesIO
from pathlib import Path

import aiohttp
import psutil
import pytest

from services.telemetry.supervisor import FAILURES_MAX
from tests.faults.fault_stand import BEGIN, CHARGE, END, FINE, IDLE_GAUGES, PATH, fitting
from tests.faults.processes import (
    ASKED,
    GONE,
    SHUTDOWN,
    apart,
    asking,
    at_rest,
    holds_are_closed,
    how_it_ends,
    priced_configuration,
)
from tests.stand import servers
from tests.stand.operators import operators
from tests.stand.ports import free_ports
from tests.stand.servers import running_server
from tests.stand.upstream import STALL, FakeUpstream


async def test_a_killed_service_is_reported_and_settled_at_its_next_start(tmp_path: Path) -> None:
    """The caller gets an error at once; the next start settles the holds. Row 93."""
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, STALL])
        async with apart(tmp_path, upstream) as (service, edge, url):
            async with asking(url, service.key) as got:
                service.send_signal(signal.SIGKILL)
                assert await how_it_ends(got) == GONE
                await asyncio.wait_for(upstream.requests[0].left.wait(), 5)
            await at_rest(edge, "edge_requests_in_flight", "edge_streams", "edge_unsent_bytes")
    await holds_are_closed(tmp_path)


async def test_a_killed_edge_is_a_client_that_disconnects(tmp_path: Path) -> None:
    """The service sees its client disconnect: the provider is cancelled, the call settled.

    Row 94.
    """
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, STALL])
        async with apart(tmp_path, upstream) as (service, edge, url):
            try:
                async with asking(url, service.key):
                    edge.send_signal(signal.SIGKILL)
                    await asyncio.wait_for(upstream.requests[0].left.wait(), 5)
            except aiohttp.ClientError:
                pass
            line = await service.event("call.ended", end="client_gone")
            assert line["charge_nano_usd"] > 0
            await at_rest(service, *IDLE_GAUGES)


async def test_a_frozen_edge_ends_its_calls(tmp_path: Path) -> None:
    """They are cancelled at the provider: pings notice a client that no longer reads."""
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, STALL])
        async with apart(tmp_path, upstream) as (service, edge, url), asking(url, service.key):
            edge.send_signal(signal.SIGSTOP)
            try:
                async with asyncio.timeout(60):
                    await upstream.requests[0].left.wait()
                line = await service.event("call.ended", end="client_gone")
            finally:
                edge.send_signal(signal.SIGCONT)
            assert line["charge_nano_usd"] > 0
            await at_rest(service, *IDLE_GAUGES)


async def test_a_frozen_service_is_reported_and_settles_once(tmp_path: Path) -> None:
    """The caller gets an error within the ping timeout; the thawed service settles once. Row 95."""
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, STALL])
        async with apart(tmp_path, upstream) as (service, _, url), asking(url, service.key) as got:
            service.send_signal(signal.SIGSTOP)
            try:
                async with asyncio.timeout(60):
                    assert await how_it_ends(got) == GONE
            finally:
                service.send_signal(signal.SIGCONT)
            line = await service.event("call.ended")
            assert line["charge_nano_usd"] > 0
            assert sum(line["event"] == "call.ended" for line in service.lines) == 1
            await at_rest(service, *IDLE_GAUGES)


async def test_sigterm_ends_readiness_then_drains(tmp_path: Path) -> None:
    """After SIGTERM readiness ends, calls are accepted for the delay, streams end whole. Row 96."""
    goes_on = asyncio.Event()
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END], FINE)
        config = priced_configuration(upstream.url)
        async with running_server(tmp_path, config, "--shutdown-delay", "3") as server:
            base = f"http://{await server.address('http')}"
            async with asking(base + PATH, server.key) as running:
                server.send_signal(signal.SIGTERM)
                await server.event("shutdown.started")
                async with aiohttp.ClientSession(base) as http, http.get("/readyz") as ready:
                    assert ready.status == 503
                async with asking(base + PATH, server.key) as late:
                    assert (await late.text()).endswith("data: [DONE]\n\n")
                goes_on.set()
                assert (await running.text()).endswith("data: [DONE]\n\n")
            assert await server.ended() == 0


async def test_a_drain_ends_after_its_timeout(tmp_path: Path) -> None:
    """A stream that does not end is ended with an error; a second signal changes nothing.

    Row 96.
    """
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, STALL])
        config = priced_configuration(upstream.url)
        async with running_server(
            tmp_path, config, "--shutdown-delay", "0", "--drain-timeout", "1"
        ) as server:
            url = f"http://{await server.address('http')}{PATH}"
            async with asking(url, server.key) as answer:
                server.send_signal(signal.SIGTERM)
                await server.event("shutdown.started")
                server.send_signal(signal.SIGTERM)
                assert await how_it_ends(answer) == SHUTDOWN
            assert await server.ended() == 0
            line = await server.event("call.ended")
            assert line["charge_nano_usd"] > 0
    await holds_are_closed(tmp_path)


async def test_a_stopped_service_ends_its_streams_and_refuses_new_calls(tmp_path: Path) -> None:
    """Streams end whole where they can, else with an error; new calls get Retry-After. Row 97."""
    goes_on = asyncio.Event()
    async with FakeUpstream() as upstream, AsyncExitStack() as stack:
        upstream.play([BEGIN, goes_on, END], [BEGIN, STALL])
        arguments = ("--drain-timeout", "2")
        service, edge, url = await stack.enter_async_context(apart(tmp_path, upstream, *arguments))
        ending = await stack.enter_async_context(asking(url, service.key))
        stalled = await stack.enter_async_context(asking(url, service.key))
        service.send_signal(signal.SIGTERM)
        await service.event("shutdown.started")
        goes_on.set()
        assert (await ending.text()).endswith("data: [DONE]\n\n")

        assert await how_it_ends(stalled) in {SHUTDOWN, GONE}
        assert await service.ended() == 0
        headers = {"Authorization": f"Bearer {service.key}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(url, json=ASKED) as late,
        ):
            assert (late.status, (await late.json())["error"]["code"]) == (503, GONE)
            assert int(late.headers["Retry-After"]) >= 1
        await asyncio.wait_for(upstream.requests[1].left.wait(), 5)
        await at_rest(edge, "edge_requests_in_flight", "edge_streams", "edge_unsent_bytes")
    ends = {
        line["end"]: line["charge_nano_usd"] for line in service.lines if "charge_nano_usd" in line
    }
    assert ends.keys() == {"stop", "shutdown"}
    assert ends["stop"] == CHARGE
    assert ends["shutdown"] > 0
    assert (await holds_are_closed(tmp_path))["settled"] == 2


async def test_a_process_without_memory_leaves_no_hold(tmp_path: Path) -> None:
    """It dies or serves again: its holds are freed in either case. Row 100."""
    goes_on = asyncio.Event()
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END])
        config = priced_configuration(upstream.url)
        async with running_server(tmp_path, config) as server:
            url = f"http://{await server.address('http')}{PATH}"
            async with asking(url, server.key) as running:
                used = psutil.Process(server.pid).memory_info().vms
                before = server.set_limit(resource.RLIMIT_AS, used + 2**20)
                statuses = await asyncio.gather(*(stuff(url, server.key) for _ in range(3)))
                assert not {200, 401} & set(statuses)
                goes_on.set()
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with asyncio.timeout(10):
                        await running.text()
            survived = server.running
            if survived:
                server.set_limit(resource.RLIMIT_AS, before)
                async with asking(url, server.key) as again:
                    assert (await again.text()).endswith("data: [DONE]\n\n")
                server.send_signal(signal.SIGTERM)
            assert (await server.ended() == 0) is survived
    ends = await holds_are_closed(tmp_path)
    assert ends["settled"] >= survived
    assert ends["held"] == 0
    assert len(upstream.requests) == 1 + survived


async def stuff(url: str, key: str) -> int:
    """The status of a call that takes twenty megabytes; 0 where it got no answer."""
    messages = [{"role": "user", "content": "x" * 20_000_000}]
    body = BytesIO(json.dumps({**ASKED, "messages": messages}).encode())
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with suppress(aiohttp.ClientError, TimeoutError):
        async with (
            asyncio.timeout(30),
            aiohttp.ClientSession(headers=headers) as http,
            http.post(url, data=body) as answer,
        ):
            return answer.status
    return 0


@pytest.mark.parametrize(("failures", "code"), [(FAILURES_MAX - 1, 0), (FAILURES_MAX, 1)])
async def test_a_failing_background_task_is_restarted_or_ends_the_process(
    tmp_path: Path, failures: int, code: int
) -> None:
    """It is restarted and counted; if it cannot be kept up, the process stops in order. Row 102."""
    goes_on = asyncio.Event()
    program = (sys.executable, Path(__file__).parent / "programs" / "broken_heartbeat.py")
    fails = tmp_path / "fails"
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END], FINE)
        config = priced_configuration(upstream.url)
        async with running_server(
            tmp_path, config, program=program, env={"FAILS": str(fails)}
        ) as server:
            url = f"http://{await server.address('http')}{PATH}"
            async with asking(url, server.key) as running:
                fails.write_text(str(failures))
                await server.event("task.failed", task="ledger heartbeat", failures=failures)
                if code:
                    await server.event("shutdown.started")
                else:
                    async with asking(url, server.key) as other:
                        assert (await other.text()).endswith("data: [DONE]\n\n")
                    labels = frozenset({("task", "ledger heartbeat")})
                    samples = await server.samples()
                    assert samples["pomogator_task_failures_total", labels] == failures
                goes_on.set()
                assert (await running.text()).endswith("data: [DONE]\n\n")
            if not code:
                server.send_signal(signal.SIGTERM)
            assert await server.ended() == code
            assert "sk-canary" not in server.log
    await holds_are_closed(tmp_path)


PEPPER = {"POMOGATOR_PEPPER": "all processes have the same"}


RESTARTS = 4
"""Restarts of each service. `tests/bench` makes twenty."""


@pytest.mark.nightly
async def test_a_rolling_restart_fails_no_call(tmp_path: Path, postgres_url: str) -> None:
    """Running calls end whole, and new ones go to the other service. Row 99."""
    config = tmp_path / "pomogator.toml"
    tally: Counter[str] = Counter()
    async with FakeUpstream() as upstream, AsyncExitStack() as stack:
        upstream.play(fitting)
        state = f'\n[state]\ndatabase_url = "{postgres_url}"\n'
        config.write_text(priced_configuration(upstream.url) + state)
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        services = [
            servers.service(tmp_path / f"state-{number}", config, PEPPER, address)
            for number, address in enumerate(addresses)
        ]
        edge = servers.edge(tmp_path, f"ipv4:{','.join(addresses)}")
        for member in (*services, edge):
            stack.push_async_callback(member.stop)
        await asyncio.gather(*(member.start() for member in services))
        url = f"http://{await edge.start()}{PATH}"
        async with operators(tmp_path / "state-0") as book:
            _, key = await book.create_key("acme")
            await book.credit("acme", 10**12, "first")
        enough = asyncio.Event()

        async def load(http: aiohttp.ClientSession, *, stream: bool) -> None:
            while not enough.is_set():
                async with http.post(url, json={**ASKED, "stream": stream}) as answer:
                    text = await answer.text()
                whole = text.endswith("data: [DONE]\n\n") if stream else "usage" in text
                fine = answer.status == 200 and whole and '"error"' not in text
                tally["fine" if fine else text[-200:]] += 1

        headers = {"Authorization": f"Bearer {key}"}
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        async with asyncio.TaskGroup() as callers:
            for number in range(4):
                callers.create_task(load(http, stream=bool(number % 2)))
            for _ in range(RESTARTS):
                for member in services:
                    await member.stop(signal.SIGTERM)
                    assert member.exit_code == 0
                    await member.start()
                    await member.event("call.ended")
            enough.set()
        async with operators(tmp_path / "state-0") as book, asyncio.timeout(30):
            while (result := await book.verify()).counts.get("held", 0):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    assert tally.keys() == {"fine"}
    assert list(result.findings) == []
    assert result.counts["settled"] == tally["fine"]


@pytest.mark.parametrize("signals", [1, 2])
async def test_sigterm_during_the_start_ends_the_process_soon(tmp_path: Path, signals: int) -> None:
    """However early the signal comes, the process ends soon; a second one does no harm. Row 98."""
    config = tmp_path / "pomogator.toml"
    config.write_text(priced_configuration("http://127.0.0.1:9/v1"))
    for delay_s in (0.2, 0.6, 1.2):
        member = servers.service(tmp_path / "var", config)
        await member.spawn()
        await asyncio.sleep(delay_s)  # At some point of the start, which announces none.
        for _ in range(signals):
            if member.running:
                member.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            code = await member.ended()
        assert code in {0, -signal.SIGTERM}
    assert (await holds_are_closed(tmp_path)).get("held", 0) == 0
