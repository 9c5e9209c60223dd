"""Memory of a call while its answer streams."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import psutil

from tests.faults.fault_stand import BEGIN, END, PATH
from tests.faults.processes import ASKED, priced_configuration
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

CALLS = 40
TEXT_BYTES = 1_000_000
KEPT_MAX = 2.0
"""Of a text's size. It is kept once, to count its tokens where the provider does not; the body
that it came in and the one that it left in are two more."""


async def test_a_running_call_keeps_its_text_once(tmp_path: Path) -> None:
    """The request's bytes, received and sent, are freed once the answer begins."""
    goes_on = asyncio.Event()
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END])
        config = priced_configuration(upstream.url)
        async with running_server(tmp_path, config) as server, AsyncExitStack() as stack:
            http = await stack.enter_async_context(
                aiohttp.ClientSession(
                    f"http://{await server.address('http')}",
                    headers={"Authorization": f"Bearer {server.key}"},
                )
            )

            async def begin(text: str) -> None:
                asked = {**ASKED, "messages": [{"role": "user", "content": text}]}
                answer = await stack.enter_async_context(http.post(PATH, json=asked))
                assert answer.status == 200
                await answer.content.readany()

            await begin("Hi")
            process = psutil.Process(server.pid)
            before = process.memory_info().rss
            for _ in range(CALLS):
                await begin("x" * TEXT_BYTES)
            kept = process.memory_info().rss - before
            goes_on.set()
    assert kept < CALLS * TEXT_BYTES * KEPT_MAX
