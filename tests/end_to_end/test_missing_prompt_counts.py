"""Usage of providers that do not count the prompt: the gateway counts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.config import ChannelConfig
from tests.stand.gateway import Gateway, running
from tests.stand.response import read
from tests.stand.upstream import FakeUpstream, Request, Script, json_answer
from tests.stand.upstream import stream as events_of

MODEL = "house/model"
QUESTION: Any = {"role": "user", "content": "How many words does this question have?"}

OPENAI: list[dict[str, Any]] = [
    {"completion_tokens": 2},
    {"completion_tokens": 2, "total_tokens": 2},
    {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2},
    {"prompt_tokens": None, "output_tokens": 2},
]
ANTHROPIC: list[dict[str, Any]] = [{"output_tokens": 2}, {"input_tokens": 0, "output_tokens": 2}]
CASES = [
    *(("openai", usage) for usage in OPENAI),
    *(("openai-responses", usage) for usage in ANTHROPIC),
    *(("openrouter", usage) for usage in OPENAI[1:3]),
    *(("anthropic", usage) for usage in ANTHROPIC),
]


def openai(request: Request, usage: dict[str, Any]) -> Script:
    """Answer in OpenAI's dialect."""
    said = {"index": 0, "finish_reason": "stop"}
    if not request.json().get("stream"):
        choice = said | {"message": {"role": "assistant", "content": "Seven words."}}
        return [json_answer({"choices": [choice], "usage": usage})]
    choice = said | {"delta": {"content": "Seven words."}}
    return [events_of([{"choices": [choice]}, {"choices": [], "usage": usage}])]


def anthropic(request: Request, usage: dict[str, Any]) -> Script:
    """Answer in Anthropic's dialect."""
    block = {"type": "text", "text": "Seven words."}
    message = {"type": "message", "id": "m", "content": [block], "stop_reason": "end_turn"}
    if not request.json().get("stream"):
        return [json_answer({**message, "usage": usage})]
    events = [
        {"type": "message_start", "message": {"id": "m", "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
        {"type": "message_stop"},
    ]
    return [events_of(events)]


def responses(request: Request, usage: dict[str, Any]) -> Script:
    """Answer in the dialect of OpenAI's Responses."""
    content = [{"type": "output_text", "text": "Seven words."}]
    output = [{"type": "message", "content": content}]
    response = {"id": "r", "status": "completed", "output": output, "usage": usage}
    if not request.json().get("stream"):
        return [json_answer(response)]
    return [events_of([{"type": "response.completed", "response": response}])]


async def asked(gateway: Gateway, *, stream: bool) -> dict[str, Any]:
    """Return the usage of an answer."""
    body: dict[str, Any] = {"model": MODEL, "messages": [QUESTION], "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    async with gateway.http.post(f"{gateway.base_url}/chat/completions", json=body) as response:
        answer = await read(response)
    assert answer.status == 200, answer.text
    found: dict[str, Any] = (answer.events[-2] if stream else answer.json)["usage"]
    return found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("dialect", "usage"), CASES)
async def test_the_prompt_is_counted(
    tmp_path: Path, dialect: str, usage: dict[str, Any], *, stream: bool
) -> None:
    """Whole and streamed alike; the provider's count of the completion stands."""
    answer = {"anthropic": anthropic, "openai-responses": responses}.get(dialect, openai)
    async with FakeUpstream() as upstream:
        upstream.play(lambda request: answer(request, usage))
        channel = ChannelConfig(
            name="house", dialect=dialect, base_url=upstream.url, models={MODEL: "m"}
        )
        async with running(tmp_path, channel) as gateway:
            billed = await asked(gateway, stream=stream)

    assert billed["completion_tokens"] == 2
    assert 8 <= billed["prompt_tokens"] <= 20
    assert billed["total_tokens"] == billed["prompt_tokens"] + 2
