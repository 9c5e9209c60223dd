"""Memory of a call while its answer streams, and of the process after a burst."""

from __future__ import annotations

import asyncio
import json
import platform
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path

import aiohttp
import psutil
import pytest

from services.common.heap import RELEASE_BYTES_MIN
from tests.faults.fault_stand import BEGIN, END, PATH, fitting
from tests.faults.processes import ASKED, priced_configuration
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

CALLS = 40
TEXT_BYTES = 1_000_000
KEPT_MAX = 2.0
"""Of a text's size. It is kept once, to count its tokens where the provider does not; the body
that it came in and the one that it left in are two more."""

RETURNED_WITHIN_S = 60
"""Time enough on a busy machine; it takes three seconds."""


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns freed memory")
@pytest.mark.parametrize("streamed", [True, False])
async def test_the_memory_of_a_burst_returns_to_the_kernel(
    tmp_path: Path, *, streamed: bool
) -> None:
    """After 16 bodies of 30 MB at once the process is soon as small as before, though idle."""
    small, large = (
        json.dumps(
            {**ASKED, "stream": streamed, "messages": [{"role": "user", "content": text}]}
        ).encode()
        for text in ("Hi", "word " * 6_000_000)
    )
    async with FakeUpstream() as upstream:
        upstream.play(fitting)
        config = priced_configuration(upstream.url)
        async with running_server(tmp_path, config) as server:
            process = psutil.Process(server.pid)
            async with aiohttp.ClientSession(
                f"http://{await server.address('http')}",
                headers={
                    "Authorization": f"Bearer {server.key}",
                    "Content-Type": "application/json",
                },
            ) as http:

                async def ask(body: bytes) -> int:
                    async with http.post(PATH, data=BytesIO(body)) as answer:
                        await answer.read()
                        return answer.status

                assert await ask(small) == 200
                before = process.memory_info().rss
                statuses = await asyncio.gather(*(ask(large) for _ in range(16)))
            assert set(statuses) <= {200, 503}
            assert 200 in statuses
            async with asyncio.timeout(RETURNED_WITHIN_S):
                while process.memory_info().rss > before + RELEASE_BYTES_MIN:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
