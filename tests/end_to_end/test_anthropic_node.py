"""What a program with Anthropic's JavaScript SDK gets, whichever dialect the provider speaks."""

from __future__ import annotations

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

SCRIPT = "anthropic_sdk.mjs"

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
        assert [block["text"] for block in told["content"]] == ["Привет! 🌍"]
        assert told["stop_reason"] == "end_turn"
        assert (told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (21, 13)


async def test_tools_with_reasoning(stand: DialectStand) -> None:
    """The SDK sends its messages back unchanged, and the model goes on."""
    turns: dict[str, Any] = {}
    for scene in ("tools", "streamedTools"):
        stand.provider.say(ASKS, ANSWERS)
        turns[scene] = await run(stand, SCRIPT, scene, model=THINKING)
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


async def test_counts_and_failures(stand: DialectStand) -> None:
    """Numbers are numbers, and failures have Anthropic's form."""
    stand.provider.say(Answer(parts=[text("Half")], breaks_off="cut"))
    assert (await run(stand, SCRIPT, "count"))["input_tokens"] > 0
    for scene, status, kind in (
        ("batches", 404, "not_found_error"),
        ("refused", 400, "invalid_request_error"),
    ):
        failure = await run(stand, SCRIPT, scene)
        assert (failure["status"], failure["error"]["error"]["type"]) == (status, kind)
        assert failure["error"]["request_id"] == failure["requestID"]
    broken = await run(stand, SCRIPT, "broken")
    assert broken["error"]["error"]["type"] == "api_error"
