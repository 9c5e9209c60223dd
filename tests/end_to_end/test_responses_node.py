"""Programs with OpenAI's JavaScript SDK that use Responses, over each dialect."""

from __future__ import annotations

import json
from typing import Any

from tests.stand.client_programs import needs_node, printed_by_node
from tests.stand.dialect_stand import MODEL, THINKING, DialectStand
from tests.stand.providers.answers import ANSWERS, ASKS, GREETING

pytestmark = needs_node

SCRIPT = "openai_responses.mjs"


async def test_whole_and_streamed_answers_are_the_same(stand: DialectStand) -> None:
    """Both have the text, the status and the tokens."""
    stand.provider.say(GREETING)
    for scene in ("whole", "stream"):
        told = await printed_by_node(stand.gateway, MODEL, SCRIPT, scene)
        assert (told["output_text"], told["status"]) == ("Привет! 🌍", "completed")
        assert (told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (21, 13)


async def test_a_tool_round_keeps_the_reasoning(stand: DialectStand) -> None:
    """The SDK sends the items back unchanged, and the model goes on."""
    for scene in ("tools", "streamedTools"):
        stand.provider.say(ASKS, ANSWERS)
        first, second = await printed_by_node(stand.gateway, THINKING, SCRIPT, scene)
        assert [item["type"] for item in first["output"]] == [
            *("reasoning", "message", "function_call", "function_call")
        ]
        asked = [item for item in first["output"] if item["type"] == "function_call"]
        assert [(item["name"], json.loads(item["arguments"])) for item in asked] == [
            ("weather", {"city": "Paris"}),
            ("clock", {}),
        ]
        assert second["output_text"] == "18 °C, noon."
        body = stand.provider.bodies[-1]
        sent: Any = body.get("messages") or body["input"]
        assert ("c2lnbmVk" in json.dumps(sent)) == stand.is_signed


async def test_counts_are_numbers_and_refusals_have_openais_form(stand: DialectStand) -> None:
    """Numbers are numbers, and refusals have OpenAI's form."""
    counted = await printed_by_node(stand.gateway, MODEL, SCRIPT, "count")
    assert counted["object"] == "response.input_tokens"
    assert counted["input_tokens"] > 0
    failure = await printed_by_node(stand.gateway, MODEL, SCRIPT, "refused")
    assert (failure["status"], failure["param"]) == (400, "previous_response_id")
    assert failure["code"] == "previous_response_not_found"
