"""Replicas with a Redis go on with the reasoning that another one has got."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from tests.stand.dialect_stand import TOOLS
from tests.stand.providers.answers import Answer, call, text, thought
from tests.stand.providers.provider import FakeProvider
from tests.stand.servers import edge_and_service
from tests.stand.valkey import running_valkey

CONFIG = """
[[channels]]
name = "claude"
dialect = "anthropic"
base_url = "{provider}"
[channels.models]
"house/claude" = "claude-sonnet-4-5"

[state]
redis_url = "{redis}"
"""
QUESTION = {"role": "user", "content": "What time is it?"}
ASKS = Answer(parts=[thought("Look."), call("toolu_1", "clock", "{}")], stop="tool_calls")
ANSWERS = Answer(parts=[thought("Noon.", signature="Zg=="), text("Noon.")])


async def asked(address: str, key: str, messages: list[Any]) -> dict[str, Any]:
    """Return the message of an answer, without its reasoning."""
    body = {"model": "house/claude", "reasoning_effort": "low", "tools": TOOLS}
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(f"http://{address}", headers=headers) as http,
        http.post("/v1/chat/completions", json=body | {"messages": messages}) as response,
    ):
        answer = await response.json()
        assert response.status == 200, answer
    message: dict[str, Any] = answer["choices"][0]["message"]
    return {name: message.get(name) for name in ("role", "content", "tool_calls")}


async def test_another_process_restores_the_reasoning(tmp_path: Path) -> None:
    """It is the next process of the service, whose memory is new."""
    config, state = tmp_path / "pomogator.toml", tmp_path / "var"
    async with FakeProvider("anthropic") as provider:
        provider.say(ASKS, ANSWERS)
        with running_valkey() as redis:
            config.write_text(CONFIG.format(provider=provider.url, redis=redis.url))
            first = edge_and_service(state, config)
            try:
                address, key = await first.start(), await first.first_key()
                message = await asked(address, key, [QUESTION])
            finally:
                await first.stop()
            second = edge_and_service(state, config)
            try:
                address = await second.start()
                (made,) = message["tool_calls"]
                result = {"role": "tool", "tool_call_id": made["id"], "content": "12:00"}
                answer = await asked(address, key, [QUESTION, message, result])
            finally:
                await second.stop()

    assert answer["content"] == "Noon."
    blocks = provider.bodies[1]["messages"][1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "tool_use"]
    assert provider.bodies[1]["thinking"]["type"] == "enabled"
