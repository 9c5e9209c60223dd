"""Signatures of tool calls, such as Gemini's, make the round trip to the provider."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
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

MODEL = "house/model"
SIGNED = {"google": {"thought_signature": "c2lnbmVk"}}
CALL = {
    "index": 0,
    "id": "call-1",
    "type": "function",
    "extra_content": SIGNED,
    "function": {"name": "clock", "arguments": '{"zone":"UTC"}'},
}
LATE = [
    {name: value for name, value in CALL.items() if name != "extra_content"},
    {"index": 0, "extra_content": SIGNED},
]
TOOLS = [{"type": "function", "function": {"name": "clock"}}]
QUESTION = {"role": "user", "content": "What time is it?"}


def respond(request: Request) -> list[bytes]:
    """Answer with a call; in a stream, with the signature in a later chunk."""
    if request.json()["stream"]:
        deltas: list[dict[str, Any]] = [{"delta": {"tool_calls": [piece]}} for piece in LATE]
        chunks = [*deltas, {"delta": {}, "finish_reason": "tool_calls"}]
        return [events_of({"choices": [{"index": 0} | chunk]} for chunk in chunks)]
    choice = {"index": 0, "message": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"}
    return [json_answer({"choices": [choice]})]


@pytest.fixture
async def provider() -> AsyncIterator[FakeUpstream]:
    """A provider whose answers are tool calls."""
    async with FakeUpstream() as upstream:
        upstream.play(respond)
        yield upstream


@pytest.fixture
async def gateway(tmp_path: Path, provider: FakeUpstream) -> AsyncIterator[Gateway]:
    """A gateway over the provider."""
    channel = ChannelConfig(
        name="house",
        dialect="openai",
        base_url=provider.url,
        models={MODEL: "house-1"},
        pass_through=False,
    )
    async with running(tmp_path, channel) as made:
        yield made


async def asked(gateway: Gateway, *messages: Any, **fields: Any) -> dict[str, Any]:
    """Return the message of an answer. That of a stream has one call."""
    body = {"model": MODEL, "messages": [QUESTION, *messages], **fields}
    async with gateway.http.post(f"{gateway.base_url}/chat/completions", json=body) as response:
        answer = await read(response)
    assert answer.status == 200, answer.text
    if not answer.streamed:
        found: dict[str, Any] = answer.json["choices"][0]["message"]
        return found
    message: dict[str, Any] = {"role": "assistant", "content": None}
    for event in answer.events[:-1]:
        for choice in event["choices"]:
            delta = choice["delta"]
            if "function_call" in delta:
                _merge(message.setdefault("function_call", {}), delta["function_call"])
            for piece in delta.get("tool_calls", ()):
                _merge(message.setdefault("tool_calls", [{}])[0], piece)
    return message


def _merge(into: dict[str, Any], piece: Mapping[str, Any]) -> None:
    for name, value in piece.items():
        if name == "arguments":
            into[name] = into.get(name, "") + value
        elif isinstance(value, dict):
            _merge(into.setdefault(name, {}), value)
        else:
            into[name] = value


@pytest.mark.parametrize("stream", [False, True])
async def test_the_signature_comes_back_with_the_call(
    gateway: Gateway, provider: FakeUpstream, *, stream: bool
) -> None:
    """It does so whole and streamed, whatever unknown members a channel passes on."""
    message = await asked(gateway, tools=TOOLS, stream=stream)
    assert message["tool_calls"][0]["extra_content"] == SIGNED

    result = {"role": "tool", "tool_call_id": "call-1", "content": "noon"}
    await asked(gateway, message, result, tools=TOOLS)

    (sent,) = provider.requests[-1].json()["messages"][1]["tool_calls"]
    assert sent == {name: value for name, value in CALL.items() if name != "index"}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_signature_is_beside_a_function_call(
    gateway: Gateway, provider: FakeUpstream, *, stream: bool
) -> None:
    """The form is that which preceded tools."""
    functions = [tool["function"] for tool in TOOLS]
    message = await asked(gateway, functions=functions, stream=stream)
    assert message["function_call"]["extra_content"] == SIGNED

    result = {"role": "function", "name": "clock", "content": "noon"}
    await asked(gateway, message, result, functions=functions)

    (sent,) = provider.requests[-1].json()["messages"][1]["tool_calls"]
    assert sent["extra_content"] == SIGNED


async def test_callers_of_stubs_get_the_signature(gateway: Gateway, provider: FakeUpstream) -> None:
    """They get it whole and streamed."""
    metadata = (("authorization", f"Bearer {gateway.key}"),)
    user = content_pb2.Message(
        role=content_pb2.ROLE_USER, content=[content_pb2.ContentPart(text="What time is it?")]
    )
    spec = pb.ChatCompletionSpec(model=MODEL, messages=[user], tools=[pb.Tool(name="clock")])
    async with (
        listening(gateway.service.register, "127.0.0.1:0", grace_s=0) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = pb_grpc.ChatCompletionServiceStub(channel)
        streaming = pb.StreamChatCompletionRequest(spec=spec)
        batches = [batch async for batch in stub.StreamChatCompletion(streaming, metadata=metadata)]
        request = pb.CreateChatCompletionRequest(spec=spec)
        whole = await stub.CreateChatCompletion(request, metadata=metadata)
        message = whole.choices[0].message
        result = content_pb2.Message(
            role=content_pb2.ROLE_TOOL,
            tool_call_id="call-1",
            content=[content_pb2.ContentPart(text="noon")],
        )
        spec.messages.extend([message, result])
        again = pb.CreateChatCompletionRequest(spec=spec)
        await stub.CreateChatCompletion(again, metadata=metadata)

    pieces = [chunk.delta.tool_call for batch in batches for chunk in batch.chunks]
    (content,) = [piece.extra_content_json for piece in pieces if piece.extra_content_json]
    assert json.loads(content) == SIGNED
    (call,) = message.tool_calls
    assert json.loads(call.extra_content_json) == SIGNED
    (sent,) = provider.requests[-1].json()["messages"][1]["tool_calls"]
    assert sent["extra_content"] == SIGNED
