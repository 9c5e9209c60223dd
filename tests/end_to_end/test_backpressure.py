"""Backpressure: a stream that its client does not read waits at the provider, not in our memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.stand.dialect_stand import MODEL, configuration
from tests.stand.gateway import TRANSPORTS, Transport, running
from tests.stand.upstream import LAST_CHUNK, SSE_HEAD, FakeUpstream, UpstreamConnection, sse

PIECE = "x" * 4096
PIECES = 32_768
"""As many make 128 MiB: far more than all buffers on the way, the kernels' included."""
BLOCKED_S = 1.0
"""How long nothing has to move before it counts as blocked. Too short could not fail the test."""
HELD_MAX = 24 * 1024 * 1024
"""Bytes on the way. Most of them are in the sockets' buffers, of which Linux allows megabytes."""


class Torrent:
    """Provider with a far longer answer than any buffer holds."""

    def __init__(self) -> None:
        self.sent = 0
        self.blocked = asyncio.Event()
        self.ended = asyncio.Event()

    async def flow(self, line: UpstreamConnection) -> None:
        """Send until no byte moves, and the rest when bytes move again."""
        line.writer.transport.set_write_buffer_limits(0)
        chunk = {"choices": [{"index": 0, "delta": {"content": PIECE}, "finish_reason": None}]}
        events = sse(chunk)
        for _ in range(PIECES):
            line.writer.write(events)
            self.sent += len(events)
            draining = asyncio.ensure_future(line.writer.drain())
            if not (await asyncio.wait({draining}, timeout=BLOCKED_S))[0]:
                self.blocked.set()
            await draining
        self.ended.set()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_unread_stream_pauses_the_provider(tmp_path: Path, transport: Transport) -> None:
    """The provider pauses while a client does not read, and is cancelled when it disconnects."""
    torrent = Torrent()
    async with FakeUpstream() as upstream:
        upstream.play([SSE_HEAD, torrent.flow, LAST_CHUNK])
        channel, model = configuration("openai", upstream.url)
        async with running(tmp_path, channel, models=[model], transport=transport) as gateway:
            request = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
            url = f"{gateway.base_url}/chat/completions"
            answer = await gateway.http.post(url, json=request | {"stream": True})
            await torrent.blocked.wait()
            held = torrent.sent
            answer.close()
            async with asyncio.timeout(30):
                await upstream.requests[0].left.wait()

    assert held < HELD_MAX
    assert not torrent.ended.is_set()
