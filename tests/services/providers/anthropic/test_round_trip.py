"""An answer that comes back as history is the answer that went out, block by block."""

from __future__ import annotations

import json
from typing import Any

from services.domain.spec import Tool
from services.providers.anthropic.response import AnthropicDecoder
from tests.services.providers.anthropic.answers import gathered
from tests.services.providers.anthropic.specs import assistant, call, result, sent, user
from tests.services.providers.targets import target_of

CONTENT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "First, look.", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "Y2lwaGVy"},
    {"type": "text", "text": "Let me see: "},
    {"type": "thinking", "thinking": "", "signature": "b25seQ=="},
    {"type": "text", "text": "here, ätsch."},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"city": "Oslo"}},
    {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}},
]


def test_content_survives_a_turn() -> None:
    """Text, calls and sealed reasoning stand again as the provider had them."""
    document = {"type": "message", "content": CONTENT, "stop_reason": "tool_use"}
    answer = gathered(AnthropicDecoder().whole(json.dumps(document).encode()).events())
    turn = assistant(
        answer.text,
        tool_calls=[call(made["id"], made["arguments"]) for made in answer.calls],
        reasoning_state=answer.states[0],
    )
    tools = [Tool(name="look")]
    results = [result(made["id"], "rain") for made in answer.calls]
    target = target_of("claude-sonnet-4-5", thinking_by_name=True)
    body, notes = sent(user("Weather?"), turn, *results, tools=tools, target=target)
    assert body["messages"][1] == {"role": "assistant", "content": CONTENT}
    assert body["thinking"]["type"] == "enabled"
    assert notes == {}
