"""Codecs of a relay: nothing of a request or an answer is lost, in either form."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any, TypeVar

import msgspec
import pytest
from google.protobuf.message import Message as ProtobufMessage
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.common.contract.chat import read_completion, read_request
from services.common.contract.chat_events import read_batch
from services.common.contract.message_table import UntranslatableError
from services.common.contract.relay_codec import (
    MESSAGES,
    STRUCTS,
    RelayCodec,
    layout_digest,
    structs_version,
)
from services.domain.conversation import Message, TextPart
from services.domain.raw_request import RawRequest
from services.domain.spec import ChatCompletionSpec, CompletionRequest
from tests.services.common.contract.test_contract import NEW_NUMBER, fill_at_random

MESSAGES_EACH = 100

M = TypeVar("M", bound=ProtobufMessage)

BAD_REQUESTS = (
    b"",
    b"\xc0",
    msgspec.msgpack.encode([["m", [1]]]),
    b"\x91\x91\xa1\xff",  # The model's name is not UTF-8.
    b"\x91" * 200_000,
)


@pytest.mark.parametrize("codec", [STRUCTS, MESSAGES])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_each_field_survives(codec: RelayCodec, share: float) -> None:
    """Requests, answers and batches are equal after they were encoded and decoded."""
    chance = random.Random(share)  # noqa: S311 - no secret
    for _ in range(MESSAGES_EACH):
        request = read_request(_filled(pb.CreateChatCompletionRequest(), chance, share))
        parsed = codec.parse_request(codec.encode_request(request))
        assert codec.read_request(parsed) == request

        answer = read_completion(_filled(pb.CreateChatCompletionResponse(), chance, share))
        assert codec.decode_completion(codec.encode_completion(answer)) == answer

        batch = read_batch(_filled(pb.StreamChatCompletionResponse(), chance, share))
        assert codec.decode_batch(codec.encode_batch(batch)) == batch


def _filled(message: M, chance: random.Random, share: float) -> M:
    fill_at_random(message, chance, share)
    _replace_new_numbers(message)
    return message


def _replace_new_numbers(message: ProtobufMessage) -> None:
    """Structs of one release have no words of another."""
    for field, value in message.ListFields():
        if field.enum_type is not None and field.is_repeated:
            value[:] = [1 if number == NEW_NUMBER else number for number in value]
        elif field.enum_type is not None and value == NEW_NUMBER:
            setattr(message, field.name, 1)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else [value]:
                _replace_new_numbers(inner)


def test_a_raw_request_travels_once() -> None:
    """Members that the edge has read are not sent beside the body that they are from."""
    body = b'{"model":"m"}'
    raw = RawRequest(api="openai_responses", body=body, members={"model": msgspec.Raw(b'"m"')})
    request = CompletionRequest(spec=ChatCompletionSpec(model="m"), raw=raw)

    for codec in (STRUCTS, MESSAGES):
        data = codec.encode_request(request)
        read = codec.read_request(codec.parse_request(data)).raw
        assert read == RawRequest(api="openai_responses", body=body)
        assert data.count(b"model") == 1


def test_texts_travel_once() -> None:
    """The texts of a plain request that the edge knows are not sent beside its messages."""
    message = Message(role="user", content=[TextPart(text="a prompt")])
    spec = ChatCompletionSpec(model="m", messages=[message])
    request = CompletionRequest(spec=spec, texts=["a prompt"])

    for codec in (STRUCTS, MESSAGES):
        data = codec.encode_request(request)
        assert codec.read_request(codec.parse_request(data)) == CompletionRequest(spec=spec)
        assert data.count(b"a prompt") == 1


@pytest.mark.parametrize(
    "known",
    [
        {"texts": []},
        {"texts": ["another prompt"]},
        {"raw": RawRequest(api="openai_responses", body=b"{}", members={})},
    ],
)
def test_what_an_edge_says_of_a_request_is_not_believed(known: dict[str, Any]) -> None:
    """The core would check and charge these texts or members, and send the request itself."""
    request = CompletionRequest(spec=ChatCompletionSpec(model="m"), **known)
    with pytest.raises(UntranslatableError, match="beside"):
        STRUCTS.read_request(msgspec.msgpack.encode(request))


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        *((name, 2**31 - 1) for name in ("max_tokens", "n", "top_logprobs", "top_k")),
        ("seed", 2**63 - 1),
    ],
)
def test_integers_have_the_range_of_the_contract(name: str, largest: int) -> None:
    """In both forms: storage and accounts have no place for larger ones."""

    def request(value: int) -> CompletionRequest:
        return CompletionRequest(spec=ChatCompletionSpec(model="m", **{name: value}))  # type: ignore[arg-type]

    for value in (largest, -largest - 1):
        for codec in (STRUCTS, MESSAGES):
            data = codec.encode_request(request(value))
            assert codec.read_request(codec.parse_request(data)) == request(value)
    with pytest.raises(UntranslatableError, match="Expected `int`"):
        STRUCTS.read_request(STRUCTS.encode_request(request(largest + 1)))
    with pytest.raises(ValueError, match="out of range"):
        MESSAGES.encode_request(request(largest + 1))


def test_other_processes_of_a_release_have_its_version_of_structs() -> None:
    """It depends on no address or order of hashes."""
    program = f"from {structs_version.__module__} import *; print(structs_version())"
    for seed in ("1", "2"):
        output = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert output.strip() == structs_version()


@pytest.mark.parametrize("data", BAD_REQUESTS)
def test_a_request_that_is_no_struct_is_refused(data: bytes) -> None:
    """Without a trace of the codec in the error's type."""
    with pytest.raises(UntranslatableError):
        STRUCTS.read_request(STRUCTS.parse_request(data))


def test_the_version_of_structs_tells_their_fields() -> None:
    """Their order, names, types, defaults and tags decide what bytes mean."""

    def digest(tag: str, *fields: tuple[str, type, object]) -> str:
        return layout_digest(list[msgspec.defstruct("Inner", fields, array_like=True, tag=tag)])  # type: ignore[misc]

    one, two = ("one", str, ""), ("two", str, "")
    layouts = [
        digest("tag", one, two),
        digest("tag", two, one),
        digest("tag", one),
        digest("tag", one, ("two", bytes, b"")),
        digest("tag", one, ("two", str, "2")),
        digest("other", one, two),
    ]
    assert len(set(layouts)) == len(layouts)
    assert digest("tag", one, two) == layouts[0]
    assert structs_version() == structs_version()
