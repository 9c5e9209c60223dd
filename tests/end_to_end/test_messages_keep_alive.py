"""A stream of a message stays alive while the provider is silent, before its start and after."""

from __future__ import annotations

import asyncio
from pathlib import Path

from anthropic import AsyncAnthropic

from gateway.config import EdgeConfig
from services.config import ChannelConfig
from tests.stand.gateway import running
from tests.stand.message_events import blocks_of, joined, read_events
from tests.stand.upstream import LAST_CHUNK, SSE_HEAD, FakeUpstream, sse

MODEL = "house/model"
ASKED = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]}
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
EDGE = EdgeConfig(first_event_wait_s=0.05, keep_alive_s=0.05)

START = sse({"choices": [{"index": 0, "delta": {"content": "Good "}}]})
REST = sse({"choices": [{"index": 0, "delta": {"content": "day"}, "finish_reason": "stop"}]})


async def test_pings_fill_silence(tmp_path: Path) -> None:
    """A ping is the first event, and others follow; the SDK overlooks them all."""
    async with FakeUpstream() as upstream:
        begins, goes_on = asyncio.Event(), asyncio.Event()
        upstream.play([SSE_HEAD, begins, START, goes_on, REST, LAST_CHUNK])
        channel = ChannelConfig(
            name="house", dialect="openai", base_url=upstream.url, models={MODEL: "m"}
        )
        async with running(tmp_path, channel, edge=EDGE) as gateway:
            url = f"{gateway.base_url}/messages"
            async with gateway.http.post(url, json={**ASKED, "stream": True}) as answer:
                assert await answer.content.readuntil(b"\n\n") == PING
                assert answer.headers["request-id"] == answer.headers["x-request-id"]
                begins.set()
                while b"content_block_delta" not in await answer.content.readuntil(b"\n\n"):
                    pass
                assert await answer.content.readuntil(b"\n\n") == PING
                goes_on.set()
                assert b"message_stop" in await answer.read()

            begins.clear()
            async with AsyncAnthropic(api_key=gateway.key, base_url=gateway.url) as client:
                task = asyncio.create_task(_final(client))
                await upstream.request(1)
                await asyncio.sleep(4 * EDGE.keep_alive_s)
                begins.set()
                assert await task == "Good day"


async def _final(client: AsyncAnthropic) -> str:
    async with client.messages.stream(
        model=MODEL, max_tokens=64, messages=[{"role": "user", "content": "Hello"}]
    ) as stream:
        return await stream.get_final_text()


async def test_the_router_sends_the_same_events(tmp_path: Path) -> None:
    """The client waits for `100 Continue`."""
    async with FakeUpstream() as upstream:
        upstream.play([SSE_HEAD, START, REST, LAST_CHUNK])
        channel = ChannelConfig(
            name="house", dialect="openai", base_url=upstream.url, models={MODEL: "m"}
        )
        async with running(tmp_path, channel) as gateway:
            url = f"{gateway.base_url}/messages?beta=true"
            headers = {"Expect": "100-continue"}
            async with gateway.http.post(
                url, json={**ASKED, "stream": True}, headers=headers
            ) as answer:
                events = read_events((await answer.read()).decode())
    assert joined(blocks_of(events), "text") == "Good day"
