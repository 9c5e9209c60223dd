"""Paths of fields in `BadRequest`: they lead to fields of the request's message."""

from __future__ import annotations

import re
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.operations.v1 import operations_service_pb2 as operations

from services.rpc.field_paths import RENAMED, SAME, field_path


def path_of(module: Any, service: str, method: str) -> str:
    """Return the path of a method in gRPC."""
    return f"/{module.DESCRIPTOR.services_by_name[service].full_name}/{method}"


CREATE = path_of(chat, "ChatCompletionService", "CreateChatCompletion")
EXPLAIN = path_of(operations, "OperationsService", "ExplainChatCompletion")
KEYS = path_of(keys, "KeyService", "CreateKey")

PATHS = {
    "temperature": "spec.temperature",
    "model": "spec.model",
    "parameter_policy": "parameter_policy",
    "max_completion_tokens": "spec.max_tokens",
    "reasoning.max_tokens": "spec.thinking.budget_tokens",
    "thinking.type": "spec.thinking.mode",
    "thinking.budget_tokens": "spec.thinking.budget_tokens",
    "tools[0].function.name": "spec.tools[0].name",
    "tools[3].custom.format": "spec.tools[3].parameters_json",
    "tools[0].function.parameters.properties.x": "spec.tools[0].parameters_json",
    "tools[0].function": "spec.tools[0]",
    "tools": "spec.tools",
    "tool_choice": "spec.tool_choice",
    "tool_choice.mode": "spec.tool_choice.mode",
    "tool_choice.function.name": "spec.tool_choice.names",
    "response_format.type": "spec.response_format.type",
    "response_format.json_schema.name": "spec.response_format.name",
    "response_format.json_schema.schema": "spec.response_format.schema_json",
    "messages": "spec.messages",
    "messages[0].role": "spec.messages[0].role",
    "messages.0.content.12": "spec.messages[0].content[12]",
    "messages[2].content[1].image_url.url": "spec.messages[2].content[1].image.uri",
    "messages[2].content[1].image_url.detail": "spec.messages[2].content[1].image.detail",
    "messages[2].content[1].input_audio.format": "spec.messages[2].content[1].audio.format",
    "messages[2].content[1].file.file_data": "spec.messages[2].content[1].file.uri",
    "messages[2].content[1].cache_control.ttl": "spec.messages[2].content[1].cache_control_json",
    "messages[1].tool_calls[0].function.arguments": "spec.messages[1].tool_calls[0].arguments",
    "messages[1].reasoning_details": "spec.messages[1].reasoning_details_json",
    "messages[1].prefix": "spec.messages[1].extra_json",
    "logit_bias": "spec.logit_bias",
    "logit_bias.50256": "spec.logit_bias",
    "metadata.a": "spec.metadata",
    "stop[1]": "spec.stop[1]",
    "prediction.content": "spec.extra_json",
    "extra_json": "spec.extra_json",
    "idempotency-key": "idempotency-key",
    "": "",
}


@pytest.mark.parametrize(("param", "path"), PATHS.items())
@pytest.mark.parametrize("method", [CREATE, EXPLAIN])
def test_names_of_openai_become_those_of_the_stubs(method: str, param: str, path: str) -> None:
    """In both methods whose request has a completion."""
    assert field_path(method, param) == path
    if path and "-" not in path:
        _follow(chat.CreateChatCompletionRequest.DESCRIPTOR, path)


@pytest.mark.parametrize("path", ["account", "scope.expire_time", "page_size"])
def test_other_methods_have_the_paths_already(path: str) -> None:
    """Their failures name fields of the contract."""
    assert field_path(KEYS, path) == path


def test_an_unknown_method_has_no_fields() -> None:
    """The name stays as it is."""
    assert field_path("/nothing.Nothing/Nothing", "tools[0].function.name") == (
        "tools[0].function.name"
    )


def test_renamed_fields_are_in_the_contract() -> None:
    """Each target is a field of its message, and no name is one already."""
    messages = {message.name: message for message in _messages(chat.ChatCompletionSpec.DESCRIPTOR)}
    for name, renamed in RENAMED.items():
        fields = messages[name].fields_by_name
        assert {target for target in renamed.values() if target != SAME} <= set(fields)


def _messages(message: Descriptor, seen: frozenset[str] = frozenset()) -> set[Descriptor]:
    found = {message}
    for field in message.fields:
        inner = field.message_type
        if inner is not None and inner.name not in seen:
            found |= _messages(inner, seen | {message.name})
    return found


def _follow(message: Descriptor, path: str) -> None:
    """Check that a path leads to a field, with an index only for elements of lists."""
    inside: Descriptor | None = message
    for step in path.split("."):
        name, index = re.fullmatch(r"(\w+)(\[\d+\])?", step, re.ASCII).groups()  # type: ignore[union-attr]
        assert inside is not None
        field = inside.fields_by_name[name]
        assert field.is_repeated or index is None
        inside = field.message_type
