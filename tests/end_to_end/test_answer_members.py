"""Members of an answer that this API has no fields for arrive over REST and stubs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from openai import AsyncOpenAI
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc
from pomogator.chat.v1 import content_pb2

from services.common.contract.chat import to_completion_message
from services.common.contract.chat_events import read_batch
from services.completions.fold import Fold
from services.config import ChannelConfig
from services.rpc.listener import listening
from tests.stand.gateway import TRANSPORTS, Gateway, running
from tests.stand.response import read
from tests.stand.upstream import FakeUpstream, Request, json_answer
from tests.stand.upstream import stream as events_of

MODEL = "house/model"
QUESTION: Any = {"role": "user", "content": "What is new?"}

BESIDE: dict[str, Any] = {
    "system_fingerprint": "fp-1",
    "citations": ["https://a.example/"],
    "search_results": [{"title": "A", "url": "https://a.example/"}],
}
FILTERS = {"hate": {"filtered": False}}
CALL: dict[str, Any] = {
    "id": "call-1",
    "type": "function",
    "mood": "eager",
    "function": {"name": "clock", "arguments": "{}", "version": 2},
}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
CONTENT = [{"type": "text", "text": "News."}, PICTURE]
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "cost": 1,
    "queue_ms": 3,
    "prompt_tokens_details": {"audio_tokens": 60, "video_tokens": 7},
    "completion_tokens_details": {"rejected_prediction_tokens": 5},
}
NAMED = {"provider": "Mill", "service_tier": "flex"}
WHERE = "Where do you run?"
OWN = {"cost": {"total_cost": 1}, "user_id": "operator"}


def respond(request: Request) -> list[bytes]:
    """Answer with members everywhere, whole or streamed."""
    ends = {"finish_reason": "stop", "content_filter_results": FILTERS}
    beside = BESIDE | NAMED if request.json()["messages"][0]["content"] == WHERE else BESIDE
    if not request.json()["stream"]:
        message = {"content": CONTENT, "tool_calls": [CALL], "mode": "fast"}
        choice = {"index": 0, "message": message, **ends}
        return [json_answer({"choices": [choice], "usage": USAGE, **beside, **OWN})]
    deltas: list[dict[str, Any]] = [
        {"content": [CONTENT[0]], "mode": "fast"},
        {"content": [CONTENT[1]], "mode": "fast"},
        {"tool_calls": [{"index": 0, **CALL}]},
    ]
    chunks = [{"choices": [{"index": 0, "delta": delta}], **beside, **OWN} for delta in deltas]
    last = {"choices": [{"index": 0, "delta": {}, **ends}], "usage": USAGE}
    return [events_of([*chunks, last])]


@pytest.fixture
async def provider() -> AsyncIterator[FakeUpstream]:
    """A provider whose answers have members of its own."""
    async with FakeUpstream() as upstream:
        upstream.play(respond)
        yield upstream


@pytest.fixture(params=TRANSPORTS)
async def gateway(
    request: pytest.FixtureRequest, tmp_path: Path, provider: FakeUpstream
) -> AsyncIterator[Gateway]:
    """A gateway over the provider, with the edge in the process and apart."""
    channel = ChannelConfig(
        name="house", dialect="openai", base_url=provider.url, models={MODEL: "house-1"}
    )
    async with running(tmp_path, channel, transport=request.param) as made:
        yield made


async def asked(gateway: Gateway, **fields: Any) -> Any:
    """Return the answer, or the chunks of a stream."""
    body = {"model": MODEL, "messages": [QUESTION], **fields}
    async with gateway.http.post(f"{gateway.base_url}/chat/completions", json=body) as response:
        answer = await read(response)
    assert answer.status == 200, answer.text
    return answer.events[:-1] if answer.streamed else answer.json


async def test_a_whole_answer_has_unknown_members(gateway: Gateway) -> None:
    """Each is at its place. The operator's bill is not shown."""
    answer = await asked(gateway)

    assert {name: answer.get(name) for name in (*BESIDE, *OWN)} == BESIDE | dict.fromkeys(OWN)
    (choice,) = answer["choices"]
    assert choice["content_filter_results"] == FILTERS
    message = choice["message"]
    assert (message["content"], message["images"], message["mode"]) == ("News.", [PICTURE], "fast")
    assert message["tool_calls"] == [CALL]


async def test_a_stream_has_unknown_members(gateway: Gateway) -> None:
    """Members beside the choices are in the first chunk, the fingerprint is in all chunks."""
    first, *others = await asked(gateway, stream=True)

    assert {name: first.get(name) for name in (*BESIDE, *OWN)} == BESIDE | dict.fromkeys(OWN)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert {chunk["system_fingerprint"] for chunk in others} == {"fp-1"}
    assert not any("citations" in chunk for chunk in others)
    choices = [chunk["choices"][0] for chunk in others]
    deltas = [choice["delta"] for choice in choices]
    extra = next(delta for delta in deltas if "images" in delta)
    assert extra == {"images": [PICTURE], "mode": "fast"}
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls", [])]
    assert [piece.get("mood") for piece in pieces if "mood" in piece] == ["eager"]
    assert [piece["function"]["version"] for piece in pieces if "mood" in piece] == [2]
    assert choices[-1]["content_filter_results"] == FILTERS


@pytest.mark.parametrize(
    ("question", "fields", "named"),
    [
        (WHERE, {}, "Mill"),
        (WHERE, {"reasoning": {"effort": "low"}}, "Mill"),
        ("Hello!", {"reasoning": {"effort": "low"}}, "house"),
        ("Hello!", {}, None),
    ],
)
async def test_streams_have_the_members_of_whole_answers(
    gateway: Gateway, question: str, fields: Any, named: str | None
) -> None:
    """OpenRouter's form has the provider in all chunks."""
    said = {"messages": [{"role": "user", "content": question}], **fields}
    whole = await asked(gateway, **said)
    chunks = await asked(gateway, stream=True, **said)

    once = {"object", "created", "id", "choices", "usage"}
    streamed = {name: value for chunk in chunks for name, value in chunk.items()}
    assert {name: streamed[name] for name in streamed.keys() - once} == {
        name: whole[name] for name in whole.keys() - once
    }
    assert whole.get("provider") == named
    assert whole.get("service_tier") == ("flex" if question == WHERE else None)
    if fields:
        assert {chunk["provider"] for chunk in chunks} == {named}


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_has_its_details(gateway: Gateway, *, stream: bool) -> None:
    """The provider's details are beside those that the gateway always gives."""
    options = {"stream_options": {"include_usage": True}} if stream else {}

    answer = await asked(gateway, stream=stream, **options)

    usage = (answer[-1] if stream else answer)["usage"]
    assert usage == {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "queue_ms": 3,
        "prompt_tokens_details": {
            "cached_tokens": 0,
            "cache_write_tokens": 0,
            "audio_tokens": 60,
            "video_tokens": 7,
        },
        "completion_tokens_details": {"reasoning_tokens": 0, "rejected_prediction_tokens": 5},
    }


async def test_the_official_sdk_reads_unknown_members(gateway: Gateway) -> None:
    """Its helper takes the fingerprint of the last chunk."""
    async with AsyncOpenAI(api_key=gateway.key, base_url=gateway.base_url, max_retries=0) as client:
        whole = await client.chat.completions.create(model=MODEL, messages=[QUESTION])
        async with client.chat.completions.stream(model=MODEL, messages=[QUESTION]) as stream:
            folded = await stream.get_final_completion()

    for answer in (whole, folded):
        assert answer.system_fingerprint == "fp-1"
    assert whole.model_extra is not None
    assert whole.model_extra["citations"] == BESIDE["citations"]


async def test_callers_of_stubs_get_unknown_members(gateway: Gateway) -> None:
    """A whole answer is the fold of the stream."""
    metadata = (("authorization", f"Bearer {gateway.key}"),)
    user = content_pb2.Message(
        role=content_pb2.ROLE_USER, content=[content_pb2.ContentPart(text="What is new?")]
    )
    spec = pb.ChatCompletionSpec(model=MODEL, messages=[user])
    fold = Fold()
    async with (
        listening(gateway.service.register, "127.0.0.1:0", grace_s=0) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = pb_grpc.ChatCompletionServiceStub(channel)
        request = pb.CreateChatCompletionRequest(spec=spec)
        whole = await stub.CreateChatCompletion(request, metadata=metadata)
        streaming = pb.StreamChatCompletionRequest(spec=spec)
        async for message in stub.StreamChatCompletion(streaming, metadata=metadata):
            fold.add(read_batch(message))

    for answer in (whole, to_completion_message(fold.answer)):
        (choice,) = answer.choices
        assert answer.system_fingerprint == "fp-1"
        beside = {name: value for name, value in BESIDE.items() if name != "system_fingerprint"}
        assert json.loads(answer.extra_json) == beside
        assert json.loads(choice.extra_json) == {"content_filter_results": FILTERS}
        assert json.loads(choice.message.extra_json) == {"images": [PICTURE], "mode": "fast"}
        (call,) = choice.message.tool_calls
        assert json.loads(call.extra_json) == {"mood": "eager", "function": {"version": 2}}
