"""Raw requests of gRPC callers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

from services.common.json_values import VALUES_MAX
from tests.end_to_end.test_unknown_enums import refusal
from tests.stand.billing_stand import COST_NANO, NANO, billing_stand
from tests.stand.messages_stand import (
    ANTHROPIC,
    DOCUMENT,
    STREAM,
    document,
    request_body,
    streamed,
    told,
)

MANY_VALUES = f'"future":[{"[]," * VALUES_MAX}[]],'
MESSAGES = pb.RAW_API_ANTHROPIC_MESSAGES


def raw(*, stream: bool, **fields: Any) -> pb.RawRequest:
    """A request for a message."""
    return pb.RawRequest(**{"api": MESSAGES, "body": request_body(stream=stream), **fields})


async def test_the_bytes_of_the_provider_arrive(tmp_path: Path) -> None:
    """Usage and cost are beside them, whole and streamed."""
    async with (
        billing_stand(tmp_path, channel=ANTHROPIC) as stand,
        stand.gateway.service.channel() as channel,
    ):
        stub = pb_grpc.ChatCompletionServiceStub(channel)
        metadata = (("authorization", f"Bearer {await stand.open()}"),)
        stand.script = document()
        asked = pb.CreateChatCompletionRequest(
            raw=raw(stream=False, headers={"anthropic-beta": "effort-2025-11-24"})
        )
        whole = await stub.CreateChatCompletion(asked, metadata=metadata)
        assert whole.raw_body == told(DOCUMENT)
        assert whole.cost_nano_usd == COST_NANO
        assert whole.usage.prompt_token_count == 11
        assert [choice.finish_reason for choice in whole.choices] == [pb.FINISH_REASON_STOP]
        assert stand.upstream.requests[0].headers["anthropic-beta"] == "effort-2025-11-24"

        stand.script = streamed(STREAM)
        streaming = pb.StreamChatCompletionRequest(raw=raw(stream=True))
        messages = [each async for each in stub.StreamChatCompletion(streaming, metadata=metadata)]
        chunks = [chunk for message in messages for chunk in message.chunks]
        kinds = [chunk.WhichOneof("event") for chunk in chunks]
        assert chunks[0].started.raw_form == pb.RAW_FORM_EVENTS
        assert b"".join(chunk.raw.data for chunk in chunks) == told(STREAM)
        assert kinds == ["started", *["raw"] * (len(kinds) - 3), "choice_finished", "finished"]
        assert chunks[-1].finished.cost_nano_usd == COST_NANO
        key = metadata[0][1].removeprefix("Bearer ")
        assert await stand.balance(key) == NANO - 2 * COST_NANO


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"api": 0}, "raw.api"),
        ({"api": 99}, "raw.api"),
        ({"body": b""}, "raw.body"),
        ({"body": b"[]"}, "raw.body"),
        ({"body": request_body(stream=True)}, "raw.body"),
        ({"body": request_body(stream=False)[:-1] + b',"max_tokens":1}'}, "raw.body"),
        ({"body": request_body(stream=False).replace(b"Hello", b"\xff")}, "raw.body"),
        ({"body": request_body(stream=False, more=MANY_VALUES)}, "raw.body"),
        (
            {"body": request_body(stream=False, more='"metadata":{},').replace(b"20", b"-1")},
            "spec.max_tokens",
        ),
        ({"headers": {"x-api-key": "k"}}, "raw.headers"),
        ({"headers": {"anthropic-beta": "a\r\nx-api-key: k"}}, "raw.headers"),
    ],
)
async def test_a_wrong_request_is_invalid_argument(
    tmp_path: Path, fields: dict[str, Any], at: str
) -> None:
    """It has the path of the field, and no provider is asked."""
    async with (
        billing_stand(tmp_path, channel=ANTHROPIC) as stand,
        stand.gateway.service.channel() as channel,
    ):
        request = pb.CreateChatCompletionRequest(raw=raw(stream=False, **fields))
        metadata = (("authorization", f"Bearer {stand.gateway.key}"),)
        stub = pb_grpc.ChatCompletionServiceStub(channel)
        refused = await refusal(stub.CreateChatCompletion(request, metadata=metadata))
        assert refused == ("INVALID_ARGUMENT", "INVALID_FIELD", [at])
        assert stand.upstream.requests == []
