"""Requests, whole answers and usage: `pomogator.chat.v1` without the events of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2, usage_pb2

from services.common.contract.message_table import (
    MessageTable,
    Translation,
    UntranslatableError,
    to_json_text,
)
from services.domain.completion import Choice, Completion
from services.domain.conversation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from services.domain.events import Note
from services.domain.raw_request import RawRequest
from services.domain.spec import (
    ChatCompletionSpec,
    CompletionRequest,
    ResponseFormat,
    TextCompletion,
    Thinking,
    Tool,
    ToolChoice,
)
from services.domain.usage import Usage

RequestMessage: TypeAlias = "pb.CreateChatCompletionRequest | pb.StreamChatCompletionRequest"
R = TypeVar("R", pb.CreateChatCompletionRequest, pb.StreamChatCompletionRequest)

USAGE = MessageTable(Usage, usage_pb2.Usage)
NOTE = MessageTable(Note, pb.Note)

_PARTS: Mapping[str, MessageTable[Any, Any]] = {
    "image": MessageTable(ImagePart, content_pb2.Image),
    "reasoning": MessageTable(ReasoningPart, content_pb2.ReasoningPart),
    "audio": MessageTable(AudioPart, content_pb2.Audio),
    "file": MessageTable(FilePart, content_pb2.File),
}
"""Parts that are messages, by the field of `ContentPart.part`."""

_FIELDS = {table.struct: field for field, table in _PARTS.items()}
"""The field of each of these parts."""


def _read_part(message: content_pb2.ContentPart) -> ContentPart:
    kind = message.WhichOneof("part")
    if kind is None:
        raise UntranslatableError("The part is empty.")
    if kind == "text":
        if not message.cache_control_json and not message.extra_json:
            return TextPart(text=message.text)
        values: dict[str, Any] = {"text": message.text}
        part: type[ContentPart] = TextPart
    elif kind == "other_json":
        values, part = {"json": message.other_json.encode()}, OtherPart
    else:
        table = _PARTS[kind]
        values = table.values(getattr(message, kind))
        part = table.struct
    return part(
        **values,
        cache_control_json=message.cache_control_json.encode(),
        extra_json=message.extra_json.encode(),
    )


def _read_answered_part(message: content_pb2.ContentPart) -> ContentPart:
    """Return a part of an answer. One of a newer contract is an empty text."""
    return TextPart() if message.WhichOneof("part") is None else _read_part(message)


def _fill_part(part: ContentPart, message: content_pb2.ContentPart) -> None:
    if isinstance(part, TextPart):
        message.text = part.text
    elif isinstance(part, OtherPart):
        message.other_json = to_json_text(part.json)
    else:
        field = _FIELDS[type(part)]
        made = getattr(message, field)
        made.SetInParent()
        _PARTS[field].fill(part, made)
    if part.cache_control_json:
        message.cache_control_json = to_json_text(part.cache_control_json)
    if part.extra_json:
        message.extra_json = to_json_text(part.extra_json)


_TOOL_CALL = MessageTable(ToolCall, content_pb2.ToolCall)
MESSAGE = MessageTable(
    Message,
    content_pb2.Message,
    {"content": Translation(_read_part, _fill_part), "tool_calls": _TOOL_CALL.translation},
)
SPEC = MessageTable(
    ChatCompletionSpec,
    pb.ChatCompletionSpec,
    {
        "messages": MESSAGE.translation,
        "thinking": MessageTable(Thinking, pb.Thinking).translation,
        "tools": MessageTable(Tool, pb.Tool).translation,
        "tool_choice": MessageTable(ToolChoice, pb.ToolChoice).translation,
        "response_format": MessageTable(ResponseFormat, pb.ResponseFormat).translation,
        "text_completion": MessageTable(TextCompletion, pb.TextCompletion).translation,
    },
)
RAW = MessageTable(RawRequest, pb.RawRequest)
_REQUEST = MessageTable(
    CompletionRequest,
    pb.CreateChatCompletionRequest,
    {"spec": SPEC.translation, "raw": RAW.translation},
)
CREATE_TIME = Translation(
    lambda message: message.seconds, lambda seconds, message: message.FromSeconds(seconds)
)
CREATE_TIME_NAME = {"create_time": "create_time_s"}
_ANSWER = MessageTable(
    Message,
    content_pb2.Message,
    {
        "content": Translation(_read_answered_part, _fill_part),
        "tool_calls": _TOOL_CALL.translation,
    },
)
_CHOICE = MessageTable(Choice, pb.Choice, {"message": _ANSWER.translation})
_COMPLETION = MessageTable(
    Completion,
    pb.CreateChatCompletionResponse,
    {
        "create_time": CREATE_TIME,
        "choices": _CHOICE.translation,
        "usage": USAGE.translation,
        "notes": NOTE.translation,
    },
    CREATE_TIME_NAME,
)

read_request = _REQUEST.read
read_completion = _COMPLETION.read
to_completion_message = _COMPLETION.to_message


def fill_request(request: CompletionRequest, message: R) -> R:
    """Write the request into an empty message, and return that."""
    _REQUEST.fill(request, message)
    return message
