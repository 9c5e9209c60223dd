"""A conversation that goes on with a model of another vendor, which is strict about its form."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc
from pomogator.chat.v1 import content_pb2

from services.config import ChannelConfig
from services.rpc.listener import listening
from tests.stand.gateway import Gateway, running
from tests.stand.response import read
from tests.stand.upstream import FakeUpstream, Request, json_answer
from tests.stand.upstream import stream as events_of

MODELS = ("mistral-large-latest", "gpt-4o", "deepseek-v4-pro", "kimi-k2.6", "sonar-pro")

LONG_ID = "toolu_" + "0123456789" * 5
CALL = {"id": LONG_ID, "type": "function", "function": {"name": "clock", "arguments": "{}"}}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What time is it?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": LONG_ID, "content": "noon"},
    {"role": "user", "content": "And now?"},
    {"role": "system", "content": "In French."},
    {"role": "user", "content": "Please."},
]
ROLES = {
    "system": content_pb2.ROLE_SYSTEM,
    "user": content_pb2.ROLE_USER,
    "assistant": content_pb2.ROLE_ASSISTANT,
    "tool": content_pb2.ROLE_TOOL,
}


def faults(body: dict[str, Any]) -> dict[str, bool]:
    """Return the faults of a request by the beginning of the model's name, as vendors see them."""
    messages = body["messages"]
    roles = [message["role"] for message in messages]
    ids = [call["id"] for message in messages for call in message.get("tool_calls", ())]
    ids += [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    form = "[a-zA-Z0-9]{9}" if body["model"].startswith("mistral") else ".{1,40}"
    pairs = [*pairwise(roles)]
    reasons = body.get("thinking") != {"type": "disabled"}
    return {
        "": len(set(ids)) != 1,
        "mistral": not re.fullmatch(form, ids[0]) or ("tool", "user") in pairs,
        "gpt": not re.fullmatch(form, ids[0]),
        "deepseek": reasons,
        "kimi": reasons,
        "sonar": "system" in roles[1:] or ("user", "user") in pairs,
    }


def respond(request: Request) -> list[bytes]:
    """Answer, or refuse what the vendor would."""
    body = request.json()
    if any(found and body["model"].startswith(name) for name, found in faults(body).items()):
        return [json_answer({"error": {"message": "This is not legal here."}}, 400)]
    message = {"role": "assistant", "content": "Midi."}
    if body["stream"]:
        last = {"delta": {}, "finish_reason": "stop"}
        choices = ({"index": 0} | choice for choice in ({"delta": message}, last))
        return [events_of({"choices": [choice]} for choice in choices)]
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return [json_answer({"choices": [choice]})]


@pytest.fixture
async def provider() -> AsyncIterator[FakeUpstream]:
    """All vendors at one address."""
    async with FakeUpstream() as upstream:
        upstream.play(respond)
        yield upstream


@pytest.fixture
async def gateway(tmp_path: Path, provider: FakeUpstream) -> AsyncIterator[Gateway]:
    """A gateway over the vendors."""
    channel = ChannelConfig(
        name="house",
        dialect="openai",
        base_url=provider.url,
        models={f"house/{model}": model for model in MODELS},
    )
    async with running(tmp_path, channel) as made:
        yield made


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", MODELS)
async def test_the_conversation_goes_on(
    gateway: Gateway, provider: FakeUpstream, model: str, *, stream: bool
) -> None:
    """Changes have notes, and no word is lost, whole and streamed."""
    body = {"model": f"house/{model}", "messages": TALK, "stream": stream}
    async with gateway.http.post(f"{gateway.base_url}/chat/completions", json=body) as response:
        answer = await read(response)
        notes = json.loads(response.headers["x-pomogator-notes"])
    assert (answer.status, answer.content) == (200, "Midi.")
    assert notes
    (request,) = provider.requests
    sent = json.dumps(request.json()["messages"])
    assert all(message["content"] in sent for message in TALK)


@pytest.mark.parametrize("model", MODELS)
async def test_the_conversation_of_a_stub_goes_on(gateway: Gateway, model: str) -> None:
    """It does so whole and streamed."""
    metadata = (("authorization", f"Bearer {gateway.key}"),)
    messages = [
        content_pb2.Message(
            role=ROLES[message["role"]],
            content=[content_pb2.ContentPart(text=message["content"])],
            tool_calls=[
                content_pb2.ToolCall(id=LONG_ID, name="clock", arguments="{}")
                for _ in message.get("tool_calls", ())
            ],
            tool_call_id=message.get("tool_call_id", ""),
        )
        for message in TALK
    ]
    spec = pb.ChatCompletionSpec(model=f"house/{model}", messages=messages)
    async with (
        listening(gateway.service.register, "127.0.0.1:0", grace_s=0) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = pb_grpc.ChatCompletionServiceStub(channel)
        request = pb.CreateChatCompletionRequest(spec=spec)
        whole = await stub.CreateChatCompletion(request, metadata=metadata)
        streaming = pb.StreamChatCompletionRequest(spec=spec)
        batches = [batch async for batch in stub.StreamChatCompletion(streaming, metadata=metadata)]
    assert whole.choices[0].message.content[0].text == "Midi."
    texts = [chunk.delta.text for batch in batches for chunk in batch.chunks]
    assert "".join(texts) == "Midi."
