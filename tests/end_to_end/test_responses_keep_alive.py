"""A stream of a response that begins before its provider answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.config import EdgeConfig
from services.config import ChannelConfig
from tests.stand.gateway import running
from tests.stand.response_events import read_response_events
from tests.stand.upstream import LAST_CHUNK, SSE_HEAD, FakeUpstream, sse

MODEL = "house/model"
ASKED = {"model": MODEL, "input": "Hello", "stream": True}
COMMENT = b": keep-alive\n\n"
EDGE = EdgeConfig(first_event_wait_s=0.05, keep_alive_s=0.05)

ANSWER = sse({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]})

REFUSAL = sse({"error": {"message": "No.", "type": "invalid_request_error", "code": 400}})


def without_comments(body: bytes) -> str:
    """The events of a stream."""
    return body.replace(COMMENT, b"").decode()


async def test_comments_fill_silence(tmp_path: Path) -> None:
    """The first event is still `response.created`, also where the provider then fails."""
    async with FakeUpstream() as upstream:
        begins = asyncio.Event()
        upstream.play(
            [SSE_HEAD, begins, ANSWER, LAST_CHUNK], [SSE_HEAD, begins, REFUSAL, LAST_CHUNK]
        )
        channel = ChannelConfig(
            name="house", dialect="openai", base_url=upstream.url, models={MODEL: "m"}
        )
        async with running(tmp_path, channel, edge=EDGE) as gateway:
            for last in ("response.completed", "response.failed"):
                begins.clear()
                url = f"{gateway.base_url}/responses"
                async with gateway.http.post(url, json=ASKED) as answer:
                    assert await answer.content.readuntil(b"\n\n") == COMMENT
                    begins.set()
                    events = read_response_events(without_comments(await answer.read()))
                assert events[-1]["type"] == last
                assert events[-1]["response"]["model"] == MODEL
