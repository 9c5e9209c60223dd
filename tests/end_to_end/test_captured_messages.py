"""Every recorded exchange, asked for as a message: it says what the chat completion says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from anthropic.types import Message

from services.config import ChannelConfig
from tests.end_to_end import captures
from tests.stand.gateway import Gateway, running
from tests.stand.message_events import blocks_of, joined, read_events

CASES = {case["id"]: case for case in captures.load()}
ASKED = {"max_tokens": 4_096, "messages": [{"role": "user", "content": "Hello"}]}

BETA = "its compaction block is in the beta API's types alone"
EXCEPTIONS: Mapping[str, str] = {
    "anthropic-j-compaction-json-b97d": BETA,
    "anthropic-s-sdk-compaction-response": BETA,
    "anthropic-s-sdk-incomplete-partial-json-response": "its last event has no blank line",
    "anthropic-s-web-search-stream-citations-a9a1": "its usage is older than the SDK's types",
}
"""Cases that the SDK's types do not take as they are, which is how they pass, and the reasons."""

pytestmark = pytest.mark.skipif(not captures.CAPTURES, reason=captures.WHY_SKIPPED)


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway with a channel for every case."""
    async with captures.replaying() as url:
        channels = [
            ChannelConfig(
                name=case["id"],
                dialect=captures.dialect(case),
                base_url=f"{url}/opt/slice=event/case/{case['id']}/v1",
                models={case["id"]: case["model"] or "m"},
            )
            for case in CASES.values()
        ]
        async with running(tmp_path_factory.mktemp("state"), *channels) as gateway:
            yield gateway


@pytest.mark.parametrize("case_id", sorted(CASES.keys() - EXCEPTIONS))
async def test_a_recorded_exchange_is_the_same_as_a_message(gateway: Gateway, case_id: str) -> None:
    """Whole and streamed, each event checked by the SDK's types."""
    chat = await _ask(gateway, "/chat/completions", case_id)
    whole = await _ask(gateway, "/messages", case_id)
    _, body = await _post(gateway, "/messages", case_id, stream=True)
    if chat[0] != 200:
        assert whole[0] == {503: 529}.get(chat[0], chat[0])
        assert whole[1]["type"] == "error"
        assert whole[1]["error"]["message"]
        assert b'"type":"error"' in body
        return
    said, message = chat[1]["choices"][0]["message"], whole[1]
    Message.model_validate(message)
    events = read_events(body.decode())
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
    for blocks in (message["content"], blocks_of(events)):
        assert joined(blocks, "thinking") == (said.get("reasoning_content") or "")
        assert joined(blocks, "text") == (said["content"] or "") + (
            "" if message.get("stop_details") else said.get("refusal") or ""
        )
        uses = [block for block in blocks if block["type"] == "tool_use"]
        calls = said.get("tool_calls") or []
        assert [use["id"] for use in uses] == [call["id"] for call in calls]
    ending = next(event for event in events if event["type"] == "message_delta")
    assert ending["delta"]["stop_reason"] == message["stop_reason"]
    used = message["usage"]
    parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert sum(used.get(name) or 0 for name in parts) == chat[1]["usage"]["prompt_tokens"]


async def _ask(gateway: Gateway, path: str, model: str) -> tuple[int, Any]:
    status, body = await _post(gateway, path, model)
    return status, json.loads(body)


async def _post(gateway: Gateway, path: str, model: str, **fields: Any) -> tuple[int, bytes]:
    url = f"{gateway.base_url}{path}"
    async with gateway.http.post(url, json={"model": model, **ASKED, **fields}) as answer:
        return answer.status, await answer.read()
