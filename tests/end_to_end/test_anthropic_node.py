"""Programs with Anthropic's JavaScript SDK, over each dialect."""

from __future__ import annotations

from typing import Any

from tests.stand.client_programs import needs_node, printed_by_node
from tests.stand.dialect_stand import MODEL, THINKING, DialectStand
from tests.stand.providers.answers import ANSWERS, ASKS, GREETING, Answer, text

pytestmark = needs_node

SCRIPT = "anthropic_sdk.mjs"


async def test_whole_and_streamed_answers_are_the_same(stand: DialectStand) -> None:
    """Both have the text, the reason to stop and the tokens."""
    stand.provider.say(GREETING)
    for scene in ("whole", "stream"):
        told = await printed_by_node(stand.gateway, MODEL, SCRIPT, scene)
        assert [block["text"] for block in told["content"]] == ["Привет! 🌍"]
        assert told["stop_reason"] == "end_turn"
        assert (told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (21, 13)


async def test_a_tool_round_keeps_the_reasoning(stand: DialectStand) -> None:
    """The SDK sends its messages back unchanged, and the model goes on."""
    turns: dict[str, Any] = {}
    for scene in ("tools", "streamedTools"):
        stand.provider.say(ASKS, ANSWERS)
        turns[scene] = await printed_by_node(stand.gateway, THINKING, SCRIPT, scene)
        first, second = turns[scene]
        uses = [block for block in first["content"] if block["type"] == "tool_use"]
        assert [(use["name"], use["input"]) for use in uses] == [
            ("weather", {"city": "Paris"}),
            ("clock", {}),
        ]
        assert (first["stop_reason"], second["stop_reason"]) == ("tool_use", "end_turn")
        assert second["content"][-1]["text"] == "18 °C, noon."
        if stand.dialect == "anthropic":
            sent = stand.provider.bodies[-1]["messages"][1]["content"]
            assert sent[0]["signature"] == "c2lnbmVk"


async def test_counts_are_numbers_and_failures_have_anthropics_form(stand: DialectStand) -> None:
    """A broken stream is a failure, too."""
    stand.provider.say(Answer(parts=[text("Half")], breaks_off="cut"))
    assert (await printed_by_node(stand.gateway, MODEL, SCRIPT, "count"))["input_tokens"] > 0
    for scene, status, kind in (
        ("batches", 404, "not_found_error"),
        ("refused", 400, "invalid_request_error"),
    ):
        failure = await printed_by_node(stand.gateway, MODEL, SCRIPT, scene)
        assert (failure["status"], failure["error"]["error"]["type"]) == (status, kind)
        assert failure["error"]["request_id"] == failure["requestID"]
    broken = await printed_by_node(stand.gateway, MODEL, SCRIPT, "broken")
    assert broken["error"]["error"]["type"] == "api_error"
