"""Server reflection as its clients ask for it, in both versions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2 as chat

from services.rpc.listener import listening

LISTED = chat.DESCRIPTOR.services_by_name["ChatCompletionService"].full_name
VERSIONS = ("v1", "v1alpha")

SYMBOLS: Mapping[str, str] = {
    LISTED: "pomogator/chat/v1/chat_completion_service.proto",
    f"{LISTED}.StreamChatCompletion": "pomogator/chat/v1/chat_completion_service.proto",
    "pomogator.chat.v1.Message": "pomogator/chat/v1/content.proto",
    "pomogator.chat.v1.Message.role": "pomogator/chat/v1/content.proto",
    "pomogator.chat.v1.ContentPart.part": "pomogator/chat/v1/content.proto",
    "pomogator.chat.v1.Role": "pomogator/chat/v1/content.proto",
    "pomogator.chat.v1.ROLE_USER": "pomogator/chat/v1/content.proto",
    "google.api.http": "google/api/annotations.proto",
    "grpc.reflection.v1.ServerReflection": "grpc_reflection/v1/reflection.proto",
    "grpc.reflection.v1.ServerReflection.ServerReflectionInfo": (
        "grpc_reflection/v1/reflection.proto"
    ),
    "grpc.reflection.v1alpha.ServerReflection": "grpc_reflection/v1alpha/reflection.proto",
}
"""A symbol of every kind, by the file that has it."""


class Dialogue:
    """A client of one version."""

    def __init__(self, channel: grpc.aio.Channel, version: str) -> None:
        make: Any = channel.stream_stream
        self._call = make(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=pb.ServerReflectionRequest.SerializeToString,
            response_deserializer=pb.ServerReflectionResponse.FromString,
        )

    async def ask(self, *requests: pb.ServerReflectionRequest) -> list[Any]:
        """Send requests in one dialogue, and return the answers."""
        return [answer async for answer in self._call(iter(requests))]

    async def file_of(self, symbol: str) -> list[descriptor_pb2.FileDescriptorProto]:
        """Return the file of a symbol, and those that it imports."""
        request = pb.ServerReflectionRequest(file_containing_symbol=symbol)
        (answer,) = await self.ask(request)
        found = answer.file_descriptor_response.file_descriptor_proto
        return [descriptor_pb2.FileDescriptorProto.FromString(each) for each in found]


@pytest.fixture(params=VERSIONS)
async def dialogue(request: pytest.FixtureRequest) -> AsyncIterator[Dialogue]:
    """A client of each version."""
    async with (
        listening(lambda _: None, "127.0.0.1:0", reflected=[LISTED], grace_s=0) as bound,
        grpc.aio.insecure_channel(bound) as channel,
    ):
        yield Dialogue(channel, request.param)


async def test_services_are_listed(dialogue: Dialogue) -> None:
    """The listed service, and reflection in both versions."""
    (answer,) = await dialogue.ask(pb.ServerReflectionRequest(list_services="*"))

    assert {service.name for service in answer.list_services_response.service} == {
        LISTED,
        *(f"grpc.reflection.{version}.ServerReflection" for version in VERSIONS),
    }


@pytest.mark.parametrize("symbol", SYMBOLS)
async def test_every_kind_of_symbol_has_its_file(dialogue: Dialogue, symbol: str) -> None:
    """The file comes first, and its imports are all that it needs."""
    files = await dialogue.file_of(symbol)

    assert files[0].name == SYMBOLS[symbol]
    names = [file.name for file in files]
    assert len(names) == len(set(names))
    assert {imported for file in files for imported in file.dependency} <= set(names)


async def test_the_file_of_version_1_has_the_messages_of_version_1(dialogue: Dialogue) -> None:
    """A client that makes its messages from the file can go on with them."""
    (file,) = await dialogue.file_of("grpc.reflection.v1.ServerReflection")

    assert "v1alpha" not in str(file)
    assert file.service[0].method[0].input_type == ".grpc.reflection.v1.ServerReflectionRequest"


async def test_failures_do_not_end_the_dialogue(dialogue: Dialogue) -> None:
    """An unknown symbol, file or extension is NOT_FOUND, an empty request INVALID_ARGUMENT."""
    extension = pb.ExtensionRequest(containing_type="google.protobuf.MethodOptions")
    answers = await dialogue.ask(
        pb.ServerReflectionRequest(file_containing_symbol="pomogator.chat.v1.Nothing"),
        pb.ServerReflectionRequest(file_containing_symbol=f"{LISTED}.Nothing"),
        pb.ServerReflectionRequest(file_by_filename="nothing.proto"),
        pb.ServerReflectionRequest(file_containing_extension=extension),
        pb.ServerReflectionRequest(all_extension_numbers_of_type="Nothing"),
        pb.ServerReflectionRequest(host="h"),
        pb.ServerReflectionRequest(file_by_filename="pomogator/chat/v1/usage.proto"),
    )

    not_found, invalid = (
        code.value[0] for code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
    )
    assert [answer.error_response.error_code for answer in answers] == [
        *[not_found] * 5,
        invalid,
        0,
    ]
    assert answers[5].valid_host == answers[5].original_request.host == "h"


async def test_extensions_are_found(dialogue: Dialogue) -> None:
    """By the type that they extend, and by their number."""
    options = "google.protobuf.MethodOptions"
    (numbers,) = await dialogue.ask(
        pb.ServerReflectionRequest(all_extension_numbers_of_type=options)
    )
    http = 72295728
    wanted = pb.ExtensionRequest(containing_type=options, extension_number=http)
    (file,) = await dialogue.ask(pb.ServerReflectionRequest(file_containing_extension=wanted))

    assert http in numbers.all_extension_numbers_response.extension_number
    assert file.file_descriptor_response.file_descriptor_proto


async def test_bytes_that_are_no_request_are_refused() -> None:
    """INVALID_ARGUMENT, and no fault of the gateway."""
    async with (
        listening(lambda _: None, "127.0.0.1:0", reflected=[LISTED], grace_s=0) as bound,
        grpc.aio.insecure_channel(bound) as channel,
    ):
        call: Any = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            [each async for each in call(iter([b"\xff\xff"]))]

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
