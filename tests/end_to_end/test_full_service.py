"""An edge in a process of its own learns its service's limit of calls."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from tests.stand.configuration import configuration
from tests.stand.held_provider import ASKED, PATH, HeldProvider
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

PLACES, ASKING = 3, 40


async def test_most_of_a_flood_is_refused_at_the_edge(tmp_path: Path) -> None:
    """The first one too many is refused by the service, hardly any other; those inside go on.

    Both count what they refuse, and the edge says how many it makes at a time.
    """
    provider = HeldProvider()
    provider.goes_on.clear()
    for name in ("service", "edge"):
        (tmp_path / name).mkdir()
    async with FakeUpstream() as upstream:
        upstream.play(provider)
        config = configuration(upstream.url, prices={"request_usd": 0})
        config += f"\n[bounds]\ncalls_max = {PLACES}\n"
        async with running_server(tmp_path / "service", config, only="grpc") as service:
            target = await service.tcp_address()
            edge_alone = running_server(tmp_path / "edge", "", "--target", target, only="rest")
            async with edge_alone as edge, aiohttp.ClientSession() as http:
                url = f"http://{await edge.address('http')}{PATH}"
                headers = {"Authorization": f"Bearer {service.key}"}

                async def ask() -> int:
                    body = {**ASKED, "stream": True}
                    async with http.post(url, json=body, headers=headers) as answer:
                        await answer.read()
                        return answer.status

                running = [asyncio.create_task(ask()) for _ in range(PLACES)]
                await upstream.request(PLACES - 1)
                refused = [await ask() for _ in range(ASKING)]
                counted = await edge.samples()
                theirs = await service.samples()
                provider.goes_on.set()
                served = [*await asyncio.gather(*running), await ask()]

    assert refused == [503] * ASKING
    assert served == [200] * (PLACES + 1)
    assert len(upstream.requests) == PLACES + 1
    at_edge = counted["pomogator_edge_calls_refused_total", frozenset()]
    reason = frozenset({("reason", "OVERLOADED")})
    at_service = sum(value for (name, labels), value in theirs.items() if labels == reason)
    assert at_edge + at_service == ASKING
    assert at_edge > at_service
    assert counted["pomogator_edge_calls_max", frozenset()] >= PLACES
    assert any(line["event"] == "concurrency_limit.reached" for line in edge.lines)
