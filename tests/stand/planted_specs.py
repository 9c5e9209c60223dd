"""Requests of stubs: messages of the contract with a field set that was not, or other members."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2

from gateway.config import EdgeConfig
from gateway.surfaces.openai_chat.decode_fields import decode_fields
from services.common.contract.chat import fill_request, read_request
from services.domain.spec import ChatCompletionSpec, CompletionRequest
from tests.stand.planted_requests import NAMES, REQUESTS, Path, random_value

JSON_SUFFIX = "_json"


class StubPlant(NamedTuple):
    """A field to set in a message of the contract, and where."""

    request: str
    """One of `REQUESTS`, as a message."""
    path: Path
    """The message that gets the field."""
    field: str
    value: Any
    """A text, or the JSON of a field that holds JSON."""

    def message(self) -> pb.CreateChatCompletionRequest:
        """Return the request with the field."""
        request = pb.CreateChatCompletionRequest()
        request.CopyFrom(_message(self.request))
        at: Any = request.spec
        for step in self.path:
            at = at[step] if isinstance(step, int) else getattr(at, step)
        if self.field == "extra_json":
            known = json.loads(at.extra_json or "{}")
            at.extra_json = json.dumps(known | self.value)
        elif self.field.endswith(JSON_SUFFIX):
            setattr(at, self.field, json.dumps(self.value))
        else:
            setattr(at, self.field, self.value)
        return request

    def spec(self) -> ChatCompletionSpec:
        """Return the request as the service reads it. Raises UntranslatableError."""
        return read_request(self.message()).spec

    @property
    def way(self) -> Path:
        """The way to the field from the request, with names as notes have them."""
        if self.field == "extra_json":
            return (*self.path, *self.value)
        return (*self.path, self.field.removesuffix(JSON_SUFFIX))


@functools.cache
def _message(request: str) -> pb.CreateChatCompletionRequest:
    spec = decode_fields(json.dumps(REQUESTS[request]).encode(), EdgeConfig()).spec
    return fill_request(CompletionRequest(spec=spec), pb.CreateChatCompletionRequest())


def _messages(message: Message, path: Path = ()) -> Iterator[tuple[Path, Message]]:
    """Yield each message within a message, itself first."""
    yield path, message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        if field.is_repeated:
            for index, each in enumerate(value):
                yield from _messages(each, (*path, field.name, index))
        else:
            yield from _messages(value, (*path, field.name))


def _reasons_in_details(message: Message) -> bool:
    return isinstance(message, content_pb2.Message) and bool(message.reasoning_details_json)


def _settable(message: Message) -> Iterator[Any]:
    """Yield the fields that hold text and are not set, and those of other members."""
    for field in message.DESCRIPTOR.fields:
        is_text = field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
        union = field.containing_oneof
        if not is_text or (union is not None and len(union.fields) > 1):
            continue  # A member of a union replaces another, which is another request.
        if field.name == "reasoning_state" and _reasons_in_details(message):
            continue  # Two forms of one thing.
        if field.name == "extra_json" or not getattr(message, field.name):
            yield field


@functools.cache
def stub_places() -> Sequence[tuple[str, Path, str]]:
    """Return each field that can be set: request, way to the message, name of the field."""
    return [
        (request, path, field.name)
        for request in REQUESTS
        for path, message in _messages(_message(request).spec)
        for field in _settable(message)
    ]


def random_stub_plant(chance: random.Random) -> StubPlant:
    """Return a field with a value that is nowhere else, in a message of a request."""
    request, path, field = chance.choice(stub_places())
    if field == "extra_json":
        name = chance.choice(NAMES)
        return StubPlant(request, path, field, {name: random_value(chance)})
    text = f"t{chance.getrandbits(64):x}"
    is_json = field.endswith(JSON_SUFFIX)
    return StubPlant(request, path, field, {"type": text} if is_json else text)
