"""Messages of the contract and structs of the domain: nothing is lost, either way."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2
from pomogator.models.v1 import model_service_pb2 as models

from services.common.contract.chat import (
    fill_request,
    read_completion,
    read_request,
    to_completion_message,
)
from services.common.contract.chat_events import read_batch, to_batch_message
from services.common.contract.message_table import UntranslatableError
from services.common.contract.models import read_model, to_model_message
from services.domain.conversation import Message as DomainMessage
from services.domain.conversation import TextPart
from services.domain.events import Batch, ExtraDelta, TextDelta
from services.domain.spec import ChatCompletionSpec, CompletionRequest, Thinking

MESSAGES_EACH = 200
NEW_NUMBER = 99
"""A value of an enum that this version does not know."""


def fill_at_random(message: Message, chance: random.Random, share: float) -> None:
    """Set about `share` of the fields of a message, one of each union, and so on below it."""
    unions = {union.name: chance.choice(union.fields) for union in message.DESCRIPTOR.oneofs}
    for field in message.DESCRIPTOR.fields:
        union = field.containing_oneof
        if union is not None and len(union.fields) > 1:
            if unions[union.name] is field:
                _set(message, field, chance, share)
        elif chance.random() < share or _is_required(message.DESCRIPTOR, field):
            _set(message, field, chance, share)


def _is_required(message: Any, field: Any) -> bool:
    """Structs always have the message of a choice and the usage of an answer."""
    return (message.name, field.name) in {
        ("Choice", "message"),
        ("CreateChatCompletionResponse", "usage"),
        ("CreateChatCompletionRequest", "spec"),
        ("CreateChatCompletionResponse", "create_time"),
        ("CompletionStarted", "create_time"),
        ("Model", "create_time"),
    }


def _set(message: Message, field: Any, chance: random.Random, share: float) -> None:
    target = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        for _ in range(chance.randint(1, 3)):
            target[_scalar(key, chance)] = _scalar(value, chance)
    elif field.message_type is not None and field.is_repeated:
        for _ in range(chance.randint(1, 3)):
            fill_at_random(target.add(), chance, share)
    elif field.message_type is not None:
        target.SetInParent()
        if field.message_type.name == "Timestamp":
            target.seconds = chance.randint(1, 2**33)
        else:
            fill_at_random(target, chance, share)
            _remove_misplaced(target)
    elif field.is_repeated:
        target.extend(_scalar(field, chance) for _ in range(chance.randint(1, 3)))
    else:
        setattr(message, field.name, _scalar(field, chance))


def _remove_misplaced(message: Message) -> None:
    """Remove what the contract allows only beside other fields."""
    if isinstance(message, pb.CompletionDelta) and message.WhichOneof("content") != "reasoning":
        message.ClearField("reasoning_details_json")


def _scalar(field: Any, chance: random.Random) -> Any:
    if field.enum_type is not None:
        return chance.choice([*list(field.enum_type.values_by_number)[1:], NEW_NUMBER])
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = f"{field.name}-{chance.randint(0, 999)}"
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return chance.random() + 0.1
    return chance.randint(1, 2**31 - 1)


Translate = Callable[[Any], Any]

BOTH_WAYS: list[tuple[type[Message], Translate]] = [
    (
        pb.CreateChatCompletionRequest,
        lambda message: fill_request(read_request(message), pb.CreateChatCompletionRequest()),
    ),
    (
        pb.CreateChatCompletionResponse,
        lambda message: to_completion_message(read_completion(message)),
    ),
    (
        pb.StreamChatCompletionResponse,
        lambda message: to_batch_message(read_batch(message)),
    ),
    (models.Model, lambda message: to_model_message(read_model(message))),
]


@pytest.mark.parametrize(("kind", "there_and_back"), BOTH_WAYS)
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_each_field_survives(kind: type[Message], there_and_back: Translate, share: float) -> None:
    """A message that was read into the domain and written again is the same."""
    chance = random.Random(f"{kind.DESCRIPTOR.name}{share}")  # noqa: S311 - no secret
    for _ in range(MESSAGES_EACH):
        message = kind()
        fill_at_random(message, chance, share)

        assert there_and_back(message) == message


def test_both_requests_are_translated_alike() -> None:
    """The requests of the two methods have the same fields."""
    chance = random.Random(7)  # noqa: S311 - no secret
    message = pb.CreateChatCompletionRequest()
    fill_at_random(message, chance, 0.5)
    streaming = pb.StreamChatCompletionRequest.FromString(message.SerializeToString())

    assert read_request(streaming) == read_request(message)
    assert fill_request(read_request(message), pb.StreamChatCompletionRequest()) == streaming


def test_an_empty_request_has_an_empty_spec() -> None:
    """Validation says what is missing."""
    assert read_request(pb.StreamChatCompletionRequest()).spec == ChatCompletionSpec(model="")


def test_a_false_value_with_presence_stays() -> None:
    """Zero, false and an empty object differ from nothing where the contract says so."""
    spec = ChatCompletionSpec(
        model="m", n=0, temperature=0.0, logprobs=False, thinking=Thinking(), seed=0
    )
    message = fill_request(CompletionRequest(spec=spec), pb.CreateChatCompletionRequest())

    assert read_request(message).spec == spec
    assert message.spec.HasField("thinking")
    assert message.spec.HasField("temperature")
    assert not message.spec.HasField("top_p")


def test_json_that_is_not_utf_8_is_repaired() -> None:
    """The domain has the bytes of the provider, and a string of the contract only UTF-8."""
    batch: Batch = [
        TextDelta("a", 0, b'{"token":"\xff"}'),
        ExtraDelta(b'{"note":"\xed\xa0\x80"}'),
    ]

    assert read_batch(to_batch_message(batch)) == [
        TextDelta("a", 0, '{"token":"\ufffd"}'.encode()),
        ExtraDelta('{"note":"\ufffd\ufffd\ufffd"}'.encode()),
    ]


def test_an_empty_text_stays() -> None:
    """An empty text is a part, unlike a part without content."""
    spec = ChatCompletionSpec(
        model="m", messages=[DomainMessage(role="user", content=[TextPart(text="")])]
    )
    message = fill_request(CompletionRequest(spec=spec), pb.CreateChatCompletionRequest())

    assert read_request(message).spec == spec


def test_an_empty_part_is_named() -> None:
    """The path of the fault is the stub's."""
    user = content_pb2.ROLE_USER
    parts = [content_pb2.ContentPart(text="a"), content_pb2.ContentPart()]
    message = pb.CreateChatCompletionRequest()
    message.spec.messages.add(role=user, content=parts[:1])
    message.spec.messages.add(role=user, content=parts)

    with pytest.raises(UntranslatableError) as fault:
        read_request(message)

    assert fault.value.path == "spec.messages[1].content[1]"


def test_what_a_newer_service_adds_to_answers_is_left_out() -> None:
    """An older edge goes on with the events and parts that it knows."""
    batch = pb.StreamChatCompletionResponse(
        chunks=[
            pb.ChatCompletionChunk(),
            pb.ChatCompletionChunk(delta=pb.CompletionDelta(text="a", index=1)),
        ]
    )
    answer = pb.CreateChatCompletionResponse()
    answer.choices.add().message.content.add()

    assert read_batch(batch) == [TextDelta("a", 1)]
    assert read_completion(answer).choices[0].message.content == [TextPart()]
