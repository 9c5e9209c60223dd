"""Requests in OpenRouter's form get their reasoning in it, and can send it back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc
from pomogator.chat.v1 import content_pb2

from services.common.reasoning_fragments import gathered
from services.config import ChannelConfig
from services.rpc.listener import listening
from tests.stand.dialect_stand import DIALECTS, MODEL, TOOLS, DialectStand, dialect_stand
from tests.stand.gateway import Transport, running
from tests.stand.providers.answers import Answer, Redacted, call, text, thought
from tests.stand.providers.signed_call import SIGNED_CALL, answer_with_signed_call
from tests.stand.response import read
from tests.stand.upstream import FakeUpstream

ASKS = Answer(
    parts=[
        thought("I need", " the time."),
        Redacted("c2VjcmV0"),
        text("Let me see."),
        call("toolu_1", "clock", "{}"),
    ],
    stop="tool_calls",
)
ANSWERS = Answer(parts=[thought("Noon.", signature="Zg=="), text("It is noon.")])
QUESTION = {"role": "user", "content": "What time is it?"}
SEALED = {"format": "anthropic-claude-v1"}
CLAUDE = [
    {"type": "reasoning.text", "text": "I need the time.", "signature": "c2lnbmVk", "index": 0},
    {"type": "reasoning.encrypted", "data": "c2VjcmV0", "index": 1},
]
PLAIN = {"type": "reasoning.text", "text": "I need the time.", "format": "unknown", "index": 0}
REASONING = {"effort": "low"}
OPENAI: list[dict[str, Any]] = [
    {"type": "reasoning.summary", "id": "rs_0", "summary": "I need the time.", "index": 0},
    {"type": "reasoning.encrypted", "id": "rs_0", "data": "c2lnbmVk"},
    {"type": "reasoning.encrypted", "id": "rs_1", "data": "c2VjcmV0"},
]
SEALED_BY_OPENAI = {"format": "openai-responses-v1"}


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    """Each dialect in turn."""
    return str(request.param)


@pytest.fixture(params=["in-process", "tcp"])
async def stand(
    request: pytest.FixtureRequest, dialect: str, tmp_path: Path
) -> AsyncIterator[DialectStand]:
    """A gateway in one process, and one whose edge is apart."""
    transport: Transport = request.param
    async with dialect_stand(tmp_path, dialect, transport=transport) as stand:
        yield stand


def expected(dialect: str) -> list[dict[str, Any]]:
    """The details of `ASKS`. A provider without signatures has only the text."""
    if dialect == "openai-responses":
        return [SEALED_BY_OPENAI | detail for detail in OPENAI]
    return [PLAIN] if dialect == "openai" else [SEALED | detail for detail in CLAUDE]


async def asked(stand: DialectStand, *messages: Any, **fields: Any) -> dict[str, Any]:
    """Return the message of an answer; that of a stream as its deltas make it."""
    body = {"model": MODEL, "messages": [QUESTION, *messages], "tools": TOOLS, **fields}
    url = f"{stand.gateway.base_url}/chat/completions"
    async with stand.gateway.http.post(url, json=body) as response:
        answer = await read(response)
    assert answer.status == 200, answer.text
    if not answer.streamed:
        found: dict[str, Any] = answer.json["choices"][0]["message"]
        return found | {"provider": answer.json.get("provider")}
    chunks = answer.events[:-1]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    fragments = [item for delta in deltas for item in delta.get("reasoning_details", ())]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    function = {"name": "clock", "arguments": "{}"}
    return {
        "role": "assistant",
        "content": "".join(delta.get("content") or "" for delta in deltas),
        "reasoning": "".join(delta.get("reasoning", "") for delta in deltas),
        "reasoning_content": "".join(delta.get("reasoning_content", "") for delta in deltas),
        "provider": _only({chunk.get("provider") for chunk in chunks}),
        **({"reasoning_details": gathered(fragments)} if fragments else {}),
        **({"tool_calls": [{"id": calls[0]["id"], "function": function}]} if calls else {}),
    }


def _only(found: set[Any]) -> Any:
    (value,) = found
    return value


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_provider_gets_its_reasoning_back(stand: DialectStand, *, streamed: bool) -> None:
    """It checks its signatures."""
    stand.provider.say(ASKS, ANSWERS)

    first = await asked(stand, reasoning=REASONING, stream=streamed)
    assert first["reasoning_details"] == expected(stand.dialect)
    assert first["provider"] == "house"
    assert first["reasoning"] == first["reasoning_content"] == "I need the time."

    names = ("role", "content", "tool_calls", "reasoning_details")
    sent = {name: first[name] for name in names}
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "12:00"}
    second = await asked(stand, sent, result, reasoning=REASONING, stream=streamed)

    assert second["content"] == "It is noon."
    noon = second["reasoning_details"][0]
    assert noon.get("text", noon.get("summary")) == "Noon."
    assert len(stand.provider.requests) == 2
    if stand.dialect == "anthropic":
        turn = stand.provider.bodies[1]["messages"][1]["content"]
        assert [block["type"] for block in turn] == [
            *("thinking", "redacted_thinking", "text", "tool_use")
        ]
    if stand.dialect == "openrouter":
        turn = stand.provider.bodies[1]["messages"][1]
        assert turn["reasoning_details"] == sent["reasoning_details"]


@pytest.mark.parametrize("fields", [{"reasoning_effort": "low"}, {"thinking": {"type": "enabled"}}])
@pytest.mark.parametrize("streamed", [False, True])
async def test_other_forms_get_no_details(
    stand: DialectStand, fields: dict[str, Any], *, streamed: bool
) -> None:
    """OpenAI's and Anthropic's clients get `reasoning_content` alone."""
    stand.provider.say(ASKS)

    first = await asked(stand, stream=streamed, **fields)

    assert "reasoning_details" not in first
    assert not first.get("reasoning")
    assert not first.get("provider")


@pytest.mark.parametrize("streamed", [False, True])
async def test_earlier_details_ask_for_the_form(stand: DialectStand, *, streamed: bool) -> None:
    """A client that sends them speaks OpenRouter's form."""
    stand.provider.say(ANSWERS)
    earlier = {"role": "assistant", "content": "Hi.", "reasoning_details": [PLAIN]}

    answer = await asked(stand, earlier, QUESTION, reasoning_effort="low", stream=streamed)

    noon = answer["reasoning_details"][0]
    assert noon.get("text", noon.get("summary")) == "Noon."


@pytest.mark.parametrize("fields", [{"reasoning": {"exclude": True}}, {"include_reasoning": False}])
@pytest.mark.parametrize("streamed", [False, True])
async def test_excluded_reasoning_is_not_readable(
    stand: DialectStand, fields: dict[str, Any], *, streamed: bool
) -> None:
    """Nothing readable of it is in the answer."""
    stand.provider.say(ASKS)

    first = await asked(stand, stream=streamed, **fields)

    assert "reasoning_details" not in first
    assert "I need" not in json.dumps(first)


@pytest.mark.parametrize("dialect", ["anthropic"])
async def test_stubs_get_the_details(stand: DialectStand, tmp_path: Path) -> None:
    """Callers of gRPC ask with a field of `Thinking`, whole and streamed."""
    stand.provider.say(ASKS)
    asking = pb.Thinking(mode=pb.THINKING_MODE_ENABLED, reasoning_details=True)
    spec = pb.ChatCompletionSpec(model=MODEL, thinking=asking)
    spec.messages.add(role=content_pb2.ROLE_USER).content.add(text="What time is it?")
    metadata = [("authorization", f"Bearer {stand.gateway.key}")]
    address = f"unix:{tmp_path}/stubs.sock"
    register = stand.gateway.service.register
    async with (
        listening(register, address, grace_s=0) as bound,
        grpc.aio.insecure_channel(bound) as channel,
    ):
        stub = pb_grpc.ChatCompletionServiceStub(channel)
        request = pb.CreateChatCompletionRequest(spec=spec)
        whole = await stub.CreateChatCompletion(request, metadata=metadata)
        stream = stub.StreamChatCompletion(
            pb.StreamChatCompletionRequest(spec=spec), metadata=metadata
        )
        pieces = [chunk.delta async for batch in stream for chunk in batch.chunks]

    fragments = [
        item
        for piece in pieces
        if piece.reasoning_details_json
        for item in json.loads(piece.reasoning_details_json)
    ]
    details = json.loads(whole.choices[0].message.reasoning_details_json)
    assert details == gathered(fragments) == expected("anthropic")


GEMINIS_DETAIL = {
    "type": "reasoning.encrypted",
    "data": "c2lnbmVk",
    "id": "call-1",
    "format": "google-gemini-v1",
    "index": 0,
}


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_signature_of_geminis_call_is_an_encrypted_item(
    tmp_path: Path, *, streamed: bool
) -> None:
    """The provider gets it back as `extra_content`."""
    async with FakeUpstream() as upstream:
        upstream.play(answer_with_signed_call)
        channel = ChannelConfig(
            name="gemini", dialect="openai", base_url=upstream.url, models={MODEL: "gemini-3-pro"}
        )
        async with running(tmp_path, channel) as gateway:
            stand = DialectStand("openai", upstream, gateway)  # type: ignore[arg-type]
            first = await asked(stand, reasoning=REASONING, stream=streamed)
            assert first["reasoning_details"] == [GEMINIS_DETAIL]

            call = {key: SIGNED_CALL[key] for key in ("id", "type", "function")}
            details = first["reasoning_details"]
            sent = {"role": "assistant", "tool_calls": [call], "reasoning_details": details}
            result = {"role": "tool", "tool_call_id": "call-1", "content": "12:00"}
            await asked(stand, sent, result, reasoning=REASONING)

        turn = upstream.requests[1].json()["messages"][1]
        assert turn["tool_calls"][0]["extra_content"] == SIGNED_CALL["extra_content"]
