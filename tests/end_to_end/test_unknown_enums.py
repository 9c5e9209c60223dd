"""Numbers of enums that this version does not know, over real gRPC: in every field of a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from pomogator.accounts.v1 import (
    account_service_pb2,
    audit_service_pb2,
    key_service_pb2,
    ledger_service_pb2,
)
from pomogator.calls.v1 import call_service_pb2 as calls
from pomogator.calls.v1 import call_service_pb2_grpc as calls_grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc
from pomogator.chat.v1 import content_pb2
from pomogator.embeddings.v1 import embedding_service_pb2 as embeddings
from pomogator.embeddings.v1 import embedding_service_pb2_grpc as embeddings_grpc
from pomogator.models.v1 import model_service_pb2
from pomogator.operations.v1 import operations_service_pb2 as ops
from pomogator.operations.v1 import operations_service_pb2_grpc as ops_grpc
from pomogator.tenants.v1 import tenant_service_pb2
from pomogator.usage.v1 import usage_service_pb2 as usage
from pomogator.usage.v1 import usage_service_pb2_grpc as usage_grpc

from services.rpc.local_channel import local_channel
from tests.stand import held_provider

UNKNOWN = 99

MODULES: Sequence[Any] = (
    account_service_pb2,
    audit_service_pb2,
    calls,
    embeddings,
    key_service_pb2,
    ledger_service_pb2,
    pb,
    model_service_pb2,
    ops,
    tenant_service_pb2,
    usage,
)
"""Every service but the relay, which callers do not see."""

OTHERS: Mapping[str, tuple[Any, Any]] = {
    "AggregateCalls": (calls_grpc.CallServiceStub, calls.AggregateCallsRequest),
    "CreateEmbeddings": (embeddings_grpc.EmbeddingServiceStub, embeddings.CreateEmbeddingsRequest),
    "ExplainEmbeddings": (ops_grpc.OperationsServiceStub, ops.ExplainEmbeddingsRequest),
    "ExportCalls": (calls_grpc.CallServiceStub, calls.ExportCallsRequest),
    "ExportCallSums": (calls_grpc.CallServiceStub, calls.ExportCallSumsRequest),
    "ListUsage": (usage_grpc.UsageServiceStub, usage.ListUsageRequest),
}
"""The requests with enums of their own, but for those of completions."""


def request() -> pb.CreateChatCompletionRequest:
    """A valid request with one of each message that has an enum."""
    spec = pb.ChatCompletionSpec(
        model=held_provider.MODEL,
        tools=[pb.Tool(name="look")],
        tool_choice=pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_AUTO),
        thinking=pb.Thinking(mode=pb.THINKING_MODE_DISABLED),
        response_format=pb.ResponseFormat(type=pb.RESPONSE_FORMAT_TYPE_TEXT),
    )
    picture = content_pb2.Image(uri="https://pictures.example/a.png")
    spec.messages.add(role=content_pb2.ROLE_USER).content.add(image=picture)
    turn = spec.messages.add(role=content_pb2.ROLE_ASSISTANT)
    turn.tool_calls.add(id="call-1", name="look")
    return pb.CreateChatCompletionRequest(spec=spec)


def enum_fields(message: Message, path: str = "") -> Iterator[tuple[str, Message, Any]]:
    """Yield the path of each enum in a message and those in it, its message and its field."""
    for field in message.DESCRIPTOR.fields:
        if field.enum_type is not None:
            yield f"{path}{field.name}", message, field
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        inner = enumerate(value) if field.is_repeated else [(None, value)]
        for index, one in inner:
            at = field.name if index is None else f"{field.name}[{index}]"
            yield from enum_fields(one, f"{path}{at}.")


def enums_of(kind: Descriptor, seen: set[str]) -> set[str]:
    """Return the full names of all enum fields of a message type and those below it."""
    if kind.full_name in seen:
        return set()
    seen.add(kind.full_name)
    found = {field.full_name for field in kind.fields if field.enum_type is not None}
    for field in kind.fields:
        if field.message_type is not None:
            found |= enums_of(field.message_type, seen)
    return found


def test_the_request_has_every_enum() -> None:
    """So that none is left out below."""
    found = {field.full_name for _, _, field in enum_fields(request())}

    every = enums_of(pb.CreateChatCompletionRequest.DESCRIPTOR, set())
    # A request has either a specification or `raw`, which has a test of its own.
    assert found == every - {pb.RawRequest.DESCRIPTOR.fields_by_name["api"].full_name}


def test_all_requests_with_an_enum_are_tested_below() -> None:
    """A new enum in another request needs a test of its own."""
    services = [
        service for module in MODULES for service in module.DESCRIPTOR.services_by_name.values()
    ]
    with_enums = {
        method.name
        for service in services
        for method in service.methods
        if enums_of(method.input_type, set())
    }

    assert with_enums == {
        "CreateChatCompletion",
        "StreamChatCompletion",
        "CountPromptTokens",
        "ExplainChatCompletion",
        *OTHERS,
    }


async def refusal(call: Any) -> tuple[str, str, list[str]]:
    """Return the status code, the reason and the fields at fault of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    trailers = dict(raised.value.trailing_metadata() or ())
    info, bad = ErrorInfo(), BadRequest()
    packed = Status.FromString(trailers["grpc-status-details-bin"]).details
    assert packed[0].Unpack(info)
    assert packed[1].Unpack(bad)
    fields = [violation.field for violation in bad.field_violations]
    return raised.value.code().name, info.reason, fields


async def test_every_unknown_number_is_refused_with_its_path(tmp_path: Path) -> None:
    """Whole, streamed, explained and counted: as the caller's fault, not the gateway's."""
    async with (
        held_provider.held_gateway(tmp_path) as (gateway, _, _),
        local_channel(gateway.service.register) as channel,
        local_channel(gateway.service.register_operators) as operators,
    ):
        key = (("authorization", f"Bearer {gateway.key}"),)
        stub = pb_grpc.ChatCompletionServiceStub(channel)
        explain = ops_grpc.OperationsServiceStub(operators).ExplainChatCompletion
        await stub.CreateChatCompletion(request(), metadata=key)
        for number, (path, _, _) in enumerate(enum_fields(request())):
            wrong = request()
            _, message, field = list(enum_fields(wrong))[number]
            setattr(message, field.name, UNKNOWN)
            data = wrong.SerializeToString()
            streamed = stub.StreamChatCompletion(
                pb.StreamChatCompletionRequest.FromString(data), metadata=key
            )

            expected = ("INVALID_ARGUMENT", "INVALID_FIELD", [path])
            assert await refusal(stub.CreateChatCompletion(wrong, metadata=key)) == expected
            assert await refusal(streamed.read()) == expected
            asked = ops.ExplainChatCompletionRequest.FromString(data)
            assert await refusal(explain(asked)) == expected
            if message is not wrong:  # All but the policy, which does not change a prompt.
                counted = pb.CountPromptTokensRequest(spec=wrong.spec)
                assert await refusal(stub.CountPromptTokens(counted, metadata=key)) == expected


@pytest.mark.parametrize("name", OTHERS)
async def test_an_unknown_number_in_another_request_is_refused(tmp_path: Path, name: str) -> None:
    """With its path, whatever else the request lacks."""
    stub, kind = OTHERS[name]
    fields = [field for field in kind.DESCRIPTOR.fields if field.enum_type is not None]
    async with (
        held_provider.held_gateway(tmp_path) as (gateway, _, _),
        local_channel(gateway.service.register) as public,
        local_channel(gateway.service.register_operators) as operators,
    ):
        channel = operators if stub is ops_grpc.OperationsServiceStub else public
        method = getattr(stub(channel), name)
        for field in fields:
            asked = kind()
            if field.is_repeated:
                getattr(asked, field.name).append(UNKNOWN)
            else:
                setattr(asked, field.name, UNKNOWN)
            call = method(asked, metadata=(("authorization", f"Bearer {gateway.key}"),))
            if name.startswith("Export"):
                call = call.read()

            assert await refusal(call) == ("INVALID_ARGUMENT", "INVALID_FIELD", [field.name])
