"""A method's answer, into JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message

from gateway.errors import ApiError
from gateway.transcoding.bindings import Binding

WHOLE = "application/json"
LINES = "application/x-ndjson"

_encoder = msgspec.json.Encoder()


def whole(binding: Binding, answer: Message) -> bytes:
    """The body of an answer that does not stream."""
    return _encoder.encode(_value(binding, answer))


def line(binding: Binding, answer: Message) -> bytes:
    """The line of one message of a stream."""
    return b'{"result":%b}\n' % _encoder.encode(_value(binding, answer))


def last_line(error: ApiError) -> bytes:
    """The line of a stream that fails after it began."""
    return b'{"error":%b}\n' % error.to_json()


def _value(binding: Binding, answer: Message) -> Any:
    value = json_format.MessageToDict(
        answer,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    field = binding.answer_field
    if field is None:
        return value
    return value.get(field.name)  # A message that is not set is null.
