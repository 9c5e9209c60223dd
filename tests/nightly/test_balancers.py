"""Real load balancers reuse connections to an edge that were idle, and answer no call with 502."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from gateway.config import EdgeConfig
from gateway.server import serving_rest
from services.common.addresses import split_address
from services.common.key_format import PREFIX, checksum
from services.rpc.local_channel import local_channel
from tests.stand.balancers import PROGRAMS, running_balancer
from tests.stand.service import ScriptedService, answer
from tests.stand.slow_link import slow_link

DELAY_S = 0.05
"""The link's delay each way."""

IDLE_S = (10, 14, 14.8, 14.85, 14.9, 14.95, 15, 15.1, 20, 29.9, 30, 45, 59.9, 60, 65, 70)
"""Idle times: around 15 s, the timeout of heads; around those of balancers; up to 70 s."""

KEY = PREFIX + "0" * 43 + checksum("0" * 43)
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


async def statuses(http: aiohttp.ClientSession, url: str, idle_s: float) -> list[int]:
    """The statuses of two calls, the second one `idle_s` after the first."""
    got = []
    for wait_s in (0, idle_s):
        await asyncio.sleep(wait_s)
        async with http.post(url, json=ASKED) as response:
            await response.read()
            got.append(response.status)
    return got


async def statuses_behind(name: str, folder: Path) -> dict[float, list[int]]:
    """The statuses of calls behind a balancer, by the idle times between them."""
    paths = range(len(IDLE_S))
    async with (
        local_channel(ScriptedService(answer=answer()).register) as channel,
        serving_rest(channel, "127.0.0.1:0", EdgeConfig(drain_timeout_s=0.1)) as address,
        slow_link(split_address(address), DELAY_S) as port,
        running_balancer(name, folder, ("127.0.0.1", port), paths) as front,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as http,
    ):
        urls = [f"http://127.0.0.1:{front}/{n}/v1/chat/completions" for n in paths]
        calls = [statuses(http, url, idle_s) for url, idle_s in zip(urls, IDLE_S, strict=True)]
        return dict(zip(IDLE_S, await asyncio.gather(*calls), strict=True))


@pytest.mark.nightly
@pytest.mark.timeout(180)
async def test_an_idle_connection_of_a_balancer_gives_no_502(tmp_path: Path) -> None:
    """With the default timeouts, for balancers that keep idle connections longer than the edge.

    The end of a connection needs 50 ms to reach the balancer, which may send a call meanwhile.
    """
    for name, program in PROGRAMS.items():
        if program is None:
            pytest.skip(f"there is no {name} on this machine")
        (tmp_path / name).mkdir()

    got = await asyncio.gather(*(statuses_behind(name, tmp_path / name) for name in PROGRAMS))

    assert got == [{idle_s: [200, 200] for idle_s in IDLE_S}] * len(PROGRAMS)
