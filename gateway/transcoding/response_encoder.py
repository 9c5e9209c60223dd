"""Encoder of a method's responses: JSON, whole or line by line."""

from __future__ import annotations

from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message

from gateway.errors import ApiError
from gateway.transcoding.bindings import Binding
from gateway.transcoding.field_values import WRAPPED
from gateway.transcoding.openrouter_forms import FORMS

JSON = "application/json"
JSON_LINES = "application/x-ndjson"

_encoder = msgspec.json.Encoder()


def body(binding: Binding, response: Message) -> bytes:
    """The body of a response that does not stream."""
    return _encoder.encode(_value(binding, response))


def line(binding: Binding, response: Message) -> bytes:
    """The line of one message of a stream."""
    return b'{"result":%b}\n' % _encoder.encode(_value(binding, response))


def error_line(error: ApiError) -> bytes:
    """The last line of a stream that fails after it began."""
    return b'{"error":%b}\n' % error.to_json()


def _value(binding: Binding, response: Message) -> Any:
    form = FORMS.get(binding.method.full_name)
    if form is not None:
        return {"data": form(response)}
    value = json_format.MessageToDict(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    field = binding.response_field
    if field is None or response.DESCRIPTOR.full_name in WRAPPED:
        return value  # In JSON a wrapper is its only field.
    return value.get(field.name)  # An unset message is null.
