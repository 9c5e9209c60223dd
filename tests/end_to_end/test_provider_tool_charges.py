"""Calls of tools that a provider runs are charged however an answer ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from services.config import BillingConfig
from tests.stand.billing_stand import MODEL, NANO, PRICE, BillingStand, bearer, billing_stand
from tests.stand.messages_stand import ANTHROPIC, document, frame
from tests.stand.upstream import CUT, SSE_HEAD, STALL, chunk, sse

CHARGE = BillingConfig(unpriced="free", provider_tools="charge")
SEARCH_NANO = 10_000_000
WORD = "tick"

SEARCH: Mapping[str, Any] = {"type": "web_search_20250305", "name": "web_search"}
BODY: Mapping[str, Any] = {
    "model": MODEL,
    "max_tokens": 20,
    "messages": [{"role": "user", "content": "Hello"}],
    "tools": [SEARCH],
}
HEAD = (
    '{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
    '"content":[],"usage":{"input_tokens":7,"output_tokens":1}}}'
)
END = (
    '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":40,'
    '"output_tokens":9}}'
)
STOP = '{"type":"message_stop"}'
PATHS = ("/messages", "/chat/completions")
"""The first one passes what callers send as it is, the second one translates it."""


def searched(first: int, *, fails: bool = False) -> Sequence[Mapping[str, Any]]:
    """A search and its result."""
    found: Any = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    call = {"type": "server_tool_use", "id": f"srvtoolu_{first}", "name": "web_search", "input": {}}
    result = {
        "type": "web_search_tool_result",
        "tool_use_id": f"srvtoolu_{first}",
        "content": found if fails else [],
    }
    return (call, result)


TEXT = {"type": "text", "text": WORD}
BLOCKS = (*searched(0), *searched(2), *searched(4, fails=True), TEXT)
"""Two searches that are billed, and one that has failed."""


def started(blocks: Sequence[Mapping[str, Any]] = BLOCKS) -> bytes:
    """The frames of an answer up to its end."""
    frames = [HEAD]
    for index, block in enumerate(blocks):
        begun = {"type": "content_block_start", "index": index, "content_block": block}
        frames += [json.dumps(begun), json.dumps({"type": "content_block_stop", "index": index})]
    return b"".join(map(frame, frames))


async def ask(
    stand: BillingStand, path: str, key: str, *, until: bytes = b"", **more: Any
) -> bytes:
    """Return what was received, to the end or until it has these bytes."""
    url = f"{stand.gateway.base_url}{path}"
    async with stand.gateway.http.post(url, json={**BODY, **more}, headers=bearer(key)) as response:
        received = b""
        async for piece in response.content.iter_any():
            received += piece
            if until and until in received:
                response.close()
                break
        return received


async def charged(stand: BillingStand, key: str) -> int:
    """Return what the calls of tools have cost, once the call has ended."""
    await stand.ended(1)
    return (NANO - await stand.balance(key)) // SEARCH_NANO * SEARCH_NANO


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("ending", [CUT, STALL])
async def test_searches_of_a_broken_or_abandoned_answer_are_charged(
    tmp_path: Path, path: str, ending: Any
) -> None:
    """The provider breaks off, or the caller leaves."""
    channel = {**ANTHROPIC, "on_disconnect": "cancel"}
    async with billing_stand(tmp_path, channel=channel, billing=CHARGE) as stand:
        stand.script = [SSE_HEAD, chunk(started()), ending]
        key = await stand.open()
        until = WORD.encode() if ending is STALL else b""
        await ask(stand, path, key, until=until, stream=True)
        assert await charged(stand, key) == 2 * SEARCH_NANO


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("usage", [{}, {"input_tokens": 40, "output_tokens": 9}])
async def test_searches_without_a_count_are_counted_by_blocks(
    tmp_path: Path, path: str, streams: bool, usage: Mapping[str, int]
) -> None:
    """The provider reports no number."""
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "content": BLOCKS,
             "stop_reason": "end_turn", "usage": usage}  # fmt: skip
    end = frame(END) if usage else frame(json.dumps({**json.loads(END), "usage": {}}))
    script = document(json.dumps(whole).encode())
    if streams:
        script = [SSE_HEAD, chunk(started() + end + frame(STOP)), b"0\r\n\r\n", CUT]
    async with billing_stand(tmp_path, channel=ANTHROPIC, billing=CHARGE) as stand:
        stand.script = script
        key = await stand.open()
        await ask(stand, path, key, stream=streams)
        assert await charged(stand, key) == 2 * SEARCH_NANO


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_with_searches_is_drained(tmp_path: Path, path: str) -> None:
    """The caller pays for the tokens of the results, which only its end has, and later searches."""
    goes_on = asyncio.Event()
    end = json.loads(END)
    end["usage"] |= {"input_tokens": 30_000, "server_tool_use": {"web_search_requests": 5}}
    async with billing_stand(tmp_path, channel=ANTHROPIC, billing=CHARGE) as stand:
        last = chunk(frame(json.dumps(end)) + frame(STOP))
        stand.script = [SSE_HEAD, chunk(started()), goes_on, last, b"0\r\n\r\n", CUT]
        key = await stand.open()
        await ask(stand, path, key, until=WORD.encode(), stream=True)
        goes_on.set()
        await stand.ended(1)
        tokens = 30_000 * 3_000 + 9 * 15_000 + 1_000_000
        assert NANO - await stand.balance(key) == tokens + 5 * SEARCH_NANO


@pytest.mark.parametrize("path", PATHS)
async def test_tools_that_callers_run_change_nothing(tmp_path: Path, path: str) -> None:
    """An answer without searches is cancelled when its caller leaves."""
    async with billing_stand(tmp_path, channel=ANTHROPIC, billing=CHARGE) as stand:
        stand.script = [SSE_HEAD, chunk(started([TEXT])), STALL]
        key = await stand.open()
        tools = [{"type": "bash_20250124", "name": "bash"}]
        await ask(stand, path, key, until=WORD.encode(), stream=True, tools=tools)
        await (await stand.upstream.request()).left.wait()
        assert await charged(stand, key) == 0


@pytest.mark.parametrize("path", PATHS)
async def test_the_balance_must_cover_searches(tmp_path: Path, path: str) -> None:
    """It covers as many as the request allows, by default five."""
    channel = {**ANTHROPIC, "drain_seconds": 1.0}
    async with billing_stand(tmp_path, channel=channel, billing=CHARGE) as stand:
        stand.script = [SSE_HEAD, chunk(started()), STALL]
        key = await stand.open(credit_nano=6 * SEARCH_NANO)
        received = await ask(stand, path, key, tools=[{**SEARCH, "max_uses": 8}])
        assert b"balance" in received
        assert not stand.upstream.requests
        asking = asyncio.create_task(ask(stand, path, key, stream=True))
        await stand.upstream.request()
        url = f"{stand.gateway.base_url}/balance"
        async with stand.gateway.http.get(url, headers=bearer(key)) as response:
            held = int((await response.json())["held_nano_usd"])
        assert 5 * SEARCH_NANO < held < 6 * SEARCH_NANO
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


RESPONSES: Mapping[str, Any] = {"dialect": "openai-responses", "models": {MODEL: "gpt-4.1"}}
TOOL_PRICE = {**PRICE, "provider_tools_usd": {"web_search": Decimal("0.01")}}


async def test_searches_over_responses_of_a_broken_answer_are_charged(tmp_path: Path) -> None:
    """They are charged, too."""
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed",
            "action": {"type": "search", "query": "tick"}}  # fmt: skip
    message = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    text = {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 2}
    events = [
        {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 1, "item": {**item, "id": "ws_2"}},
        {"type": "response.output_item.added", "output_index": 2, "item": message},
        {**text, "content_index": 0, "delta": WORD},
    ]
    channel = {**RESPONSES, "on_disconnect": "cancel"}
    async with billing_stand(tmp_path, channel=channel, billing=CHARGE, price=TOOL_PRICE) as stand:
        stand.script = [SSE_HEAD, sse(*events), STALL]
        key = await stand.open()
        tools = [{"type": "web_search"}]
        body = {"input": "Hello", "tools": tools, "max_output_tokens": 20, "stream": True}
        url = f"{stand.gateway.base_url}/responses"
        asked = {"model": MODEL, **body}
        async with stand.gateway.http.post(url, json=asked, headers=bearer(key)) as response:
            received = b""
            while WORD.encode() not in received:
                received += await response.content.readany()
            response.close()
        assert await charged(stand, key) == 2 * SEARCH_NANO
