from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2
from pomogator.embeddings.v1 import embedding_service_pb2 as embeddings

from services.rpc.field_count import PACKED_PER_FIELD, count_fields

REQUEST = pb.CreateChatCompletionRequest.DESCRIPTOR
MANY = 10**9


def fields_of(message: Message) -> int:
    """The number of fields that are set, at any depth, by reflection."""
    count = 0
    for field, value in message.ListFields():
        values: Any = value if field.is_repeated else [value]
        if field.message_type is None:
            count += len(values)
        elif field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"].message_type
            for each in value.values():
                count += 3 + (fields_of(each) if inner is not None else 0)
        else:
            count += sum(1 + fields_of(each) for each in values)
    return count


def request(seed: int) -> pb.CreateChatCompletionRequest:
    """A request of many kinds of fields."""
    chance = random.Random(seed)  # noqa: S311 - the same in each run
    made = pb.CreateChatCompletionRequest()
    spec = made.spec
    spec.model = "m" * chance.randrange(1, 300)
    spec.max_tokens, spec.temperature = 2**20, 0.5
    for _ in range(chance.randrange(20)):
        message = spec.messages.add(role=content_pb2.ROLE_USER)
        for _ in range(chance.randrange(5)):
            message.content.add().text = "x" * chance.randrange(1, 400)
        if chance.random() < 0.3:
            message.tool_calls.add(id="c", name="n", arguments="{}")
    for number in range(chance.randrange(9)):
        spec.metadata[f"k{number}"] = "v"
        spec.stop.append("stop")
    return made


@pytest.mark.parametrize("seed", range(30))
def test_the_fields_of_a_request_are_counted(seed: int) -> None:
    """All of them, as reflection has them, and none of the bytes of a text."""
    made = request(seed)
    assert count_fields(made.SerializeToString(), REQUEST, MANY) == fields_of(made)


def test_counting_ends_at_the_limit() -> None:
    """However long the rest is."""
    data = b"\x0a\x82\x80\x80\x08" + b"\x12\x00" * 2**23
    assert count_fields(data, REQUEST, 1000) == 1001


@given(st.binary(max_size=400))
def test_any_bytes_are_counted(data: bytes) -> None:
    """Where they are a request, no field of it is missed."""
    found = count_fields(data, REQUEST, MANY)
    made = pb.CreateChatCompletionRequest()
    try:
        made.MergeFromString(data)
    except DecodeError:
        return
    assert found >= fields_of(made)


@pytest.mark.parametrize(
    ("json", "values"),
    [
        ("", 0),
        ("{}", 1),
        ('{"a":[0,1,{"b":null}]}', 7),
        ('{"text":"one, two: [three] {four}"}', 2),
        (r'{"a\"b,[":"\\","c":1}', 4),
    ],
)
def test_values_of_json_are_fields(json: str, values: int) -> None:
    """They, too, become objects; what a string has is text."""
    made = pb.CreateChatCompletionRequest()
    made.spec.extra_json = json
    spec_and_json = 2 if json else 1
    made.spec.SetInParent()

    assert count_fields(made.SerializeToString(), REQUEST, MANY) == spec_and_json + values


@pytest.mark.parametrize("number", [0, 127, 128, 2**31 - 1])
def test_packed_numbers_are_a_part_of_a_field(number: int) -> None:
    """Each, however many bytes it takes: lists of them are small."""
    made = embeddings.CreateEmbeddingsRequest()
    made.spec.token_ids.add(ids=[number] * 3000)

    found = count_fields(made.SerializeToString(), made.DESCRIPTOR, MANY)

    assert found == 3 + 3000 // PACKED_PER_FIELD


@pytest.mark.parametrize("json", ["[" + "[]," * 2000 + "0]", '["a"' + ',"a"' * 2000 + "]"])
def test_values_of_many_small_fields_add_up(json: str) -> None:
    """A request is no smaller for being divided among fields."""
    made = pb.CreateChatCompletionRequest()
    for _ in range(10):
        made.spec.messages.add(role=content_pb2.ROLE_USER).content.add(text="x", extra_json=json)

    assert count_fields(made.SerializeToString(), REQUEST, MANY) > 10 * 2000
    assert count_fields(made.SerializeToString(), REQUEST, 5000) > 5000
