"""What a program with OpenAI's JavaScript SDK gets from Responses, over each dialect."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.end_to_end.test_node_sdks import NODE_MODULES, run
from tests.stand.dialect_stand import THINKING, DialectStand
from tests.stand.providers.answers import Answer, call, text, thought

pytestmark = pytest.mark.skipif(
    not (NODE_MODULES and shutil.which("node")),
    reason="POMOGATOR_NODE_MODULES is not set: Node's packages are not at hand",
)

SCRIPT = "openai_responses.mjs"

GREETING = Answer(parts=[text("При", "вет", "! 🌍")])
ASKS = Answer(
    parts=[
        thought("I need", " both."),
        text("Let me ", "see."),
        call("toolu_1", "weather", '{"ci', 'ty": "Paris"}'),
        call("toolu_2", "clock"),
    ],
    stop="tool_calls",
)
ANSWERS = Answer(parts=[thought("All clear.", signature="Zg=="), text("18 °C, noon.")])


async def test_whole_and_streamed(stand: DialectStand) -> None:
    """The answer is the same."""
    stand.provider.say(GREETING)
    for scene in ("whole", "stream"):
        told = await run(stand, SCRIPT, scene)
        assert (told["output_text"], told["status"]) == ("Привет! 🌍", "completed")
        assert (told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (21, 13)


async def test_tools_with_reasoning(stand: DialectStand) -> None:
    """The SDK sends the items back unchanged, and the model goes on."""
    for scene in ("tools", "streamedTools"):
        stand.provider.say(ASKS, ANSWERS)
        first, second = await run(stand, SCRIPT, scene, model=THINKING)
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


async def test_counts_and_refusals(stand: DialectStand) -> None:
    """Numbers are numbers, and refusals have OpenAI's form."""
    counted = await run(stand, SCRIPT, "count")
    assert counted["object"] == "response.input_tokens"
    assert counted["input_tokens"] > 0
    failure = await run(stand, SCRIPT, "refused")
    assert (failure["status"], failure["param"]) == (400, "previous_response_id")
    assert failure["code"] == "previous_response_not_found"
