"""Messages: OpenAI's conversation to ours.

Parts of earlier answers are accepted in every form in which clients of OpenAI, Anthropic and
OpenRouter send them back: `reasoning_content`, `reasoning`, thinking parts, `reasoning_state` and
`reasoning_details`; tool calls, and function calls from before there were tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2 as content

from gateway.errors import invalid
from gateway.http.strict_json import is_null
from gateway.surfaces.json_fields import one_of, read
from gateway.surfaces.openai_chat.images import ImageReader
from services.common.chat_names import IMAGE_DETAILS, ROLES

MESSAGES_MAX = 10_000
"""The most messages that are decoded; the service accepts 2,000."""

PARTS_MAX = 2_048
"""The most parts of a message that are decoded; the service accepts 256."""

_NONE = Raw()
_TEXTS = ("name", "tool_call_id", "reasoning_state", "refusal")


class _ImageUrl(Struct):
    url: str
    detail: str | None = None


class _InputAudio(Struct):
    data: str
    format: str


class _FileSource(Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _Part(Struct, tag_field="type"):
    """A part of a message. The tag is its `type`."""

    cache_control: Raw = _NONE


class _TextPart(_Part, tag="text", kw_only=True):
    text: str


class _ImagePart(_Part, tag="image_url", kw_only=True):
    image_url: str | _ImageUrl


class _AudioPart(_Part, tag="input_audio", kw_only=True):
    input_audio: _InputAudio


class _FilePart(_Part, tag="file", kw_only=True):
    file: _FileSource


class _RefusalPart(_Part, tag="refusal", kw_only=True):
    refusal: str


class _ThinkingPart(_Part, tag="thinking", kw_only=True):
    thinking: str


class _FunctionCall(Struct):
    name: str
    arguments: str | None = None


class _CustomCall(Struct):
    name: str
    input: str | None = None


class _ToolCall(Struct):
    id: str
    function: _FunctionCall | None = None
    custom: _CustomCall | None = None


_Parts = list[_TextPart | _ImagePart | _AudioPart | _FilePart | _RefusalPart | _ThinkingPart]


class _Message(Struct):
    role: str
    content: str | Annotated[_Parts, Meta(max_length=PARTS_MAX)] | None = None
    name: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: _FunctionCall | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_state: str | None = None
    reasoning_details: Raw = _NONE


_MESSAGES = msgspec.json.Decoder(Annotated[list[_Message], Meta(max_length=MESSAGES_MAX)])

MESSAGE_ROLES: Mapping[str, content.Role.ValueType] = {**ROLES, "function": content.ROLE_TOOL}
"""With the name that OpenAI gave to tools before it had that role."""

DETAILS: Mapping[str, content.ImageDetail.ValueType] = {
    "auto": content.IMAGE_DETAIL_UNSPECIFIED,
    **IMAGE_DETAILS,
}


def decode_messages(raw: Raw, images: ImageReader, spec: chat.ChatCompletionSpec) -> None:
    """Add the messages in `raw`, the JSON of the field `messages`, to `spec`.

    Each message is filled in place: protobuf copies a finished message when it is added.

    Raises:
        ApiError: a message has another shape. The error's `param` is its path.
    """
    messages = read("messages", raw, _MESSAGES)
    reader = _Reader(images)
    for index, message in enumerate(messages):
        reader.message(f"messages[{index}]", message, spec.messages.add())


class _Reader:
    """Reader of one conversation's messages, in order."""

    def __init__(self, images: ImageReader) -> None:
        self._images = images
        self._function_calls: dict[str, str] = {}

    def message(self, at: str, message: _Message, made: content.Message) -> None:
        made.role = one_of(f"{at}.role", message.role, MESSAGE_ROLES)
        for name in _TEXTS:
            if text := getattr(message, name):
                setattr(made, name, text)
        if not is_null(message.reasoning_details):
            made.reasoning_details_json = bytes(message.reasoning_details)
        self._add_content(at, made, message)
        for index, call in enumerate(message.tool_calls or ()):
            made.tool_calls.append(_tool_call(f"{at}.tool_calls[{index}]", call))
        if message.function_call is not None:
            made.tool_calls.append(self._function_call(message.function_call))
        if message.role == "function":
            made.tool_call_id = self._function_calls.get(made.name, "")

    def _add_content(self, at: str, made: content.Message, message: _Message) -> None:
        parts = message.content
        reasoning = message.reasoning_content or message.reasoning
        # A client that sends our answer back unchanged has the reasoning in both places.
        if reasoning and not _has_thinking(parts):
            made.content.add(reasoning=content.ReasoningPart(text=reasoning))
        if isinstance(parts, str):
            made.content.add(text=parts)
            return
        for index, part in enumerate(parts or ()):
            if isinstance(part, _RefusalPart):
                made.refusal += part.refusal
                continue
            added = made.content.add()
            self._part(f"{at}.content[{index}]", part, added)
            if not is_null(part.cache_control):
                added.cache_control_json = bytes(part.cache_control)

    def _part(
        self,
        at: str,
        part: _TextPart | _ImagePart | _AudioPart | _FilePart | _ThinkingPart,
        made: content.ContentPart,
    ) -> None:
        match part:
            case _TextPart():
                made.text = part.text
            case _ThinkingPart():
                made.reasoning.SetInParent()
                made.reasoning.text = part.thinking
            case _ImagePart():
                self._image(f"{at}.image_url", part.image_url, made.image)
            case _AudioPart():
                made.audio.SetInParent()
                made.audio.base64 = part.input_audio.data
                made.audio.format = part.input_audio.format
            case _FilePart():
                made.file.CopyFrom(_file(f"{at}.file", part.file))

    def _image(self, at: str, image: str | _ImageUrl, made: content.Image) -> None:
        if isinstance(image, str):
            image = _ImageUrl(url=image)
            decoded = self._images.read(at, image.url)
        else:
            decoded = self._images.read(f"{at}.url", image.url)
        if decoded.mime_type:
            made.base64 = decoded.base64
            made.mime_type = decoded.mime_type
        else:
            made.uri = decoded.uri
        if image.detail is not None:
            made.detail = one_of(f"{at}.detail", image.detail, DETAILS)

    def _function_call(self, call: _FunctionCall) -> content.ToolCall:
        # Function calls had no IDs, which tools need: the answer names the function.
        call_id = f"call_{len(self._function_calls)}_{call.name}"
        self._function_calls[call.name] = call_id
        return content.ToolCall(id=call_id, name=call.name, arguments=call.arguments or "")


def _has_thinking(parts: str | _Parts | None) -> bool:
    return isinstance(parts, list) and any(isinstance(part, _ThinkingPart) for part in parts)


def _file(at: str, source: _FileSource) -> content.File:
    made = content.File(filename=source.filename or "")
    if source.file_id is not None:
        made.file_id = source.file_id
    elif source.file_data is not None:
        made.uri = source.file_data
    else:
        raise invalid(at, f"Invalid {at}: expected `file_data` or `file_id`.")
    return made


def _tool_call(at: str, call: _ToolCall) -> content.ToolCall:
    if call.custom is not None:
        return content.ToolCall(
            id=call.id,
            name=call.custom.name,
            arguments=call.custom.input or "",
            type=content.TOOL_TYPE_CUSTOM,
        )
    if call.function is None:
        raise invalid(at, f"Invalid {at}: expected `function` or `custom`.")
    return content.ToolCall(
        id=call.id,
        name=call.function.name,
        arguments=call.function.arguments or "",
        type=content.TOOL_TYPE_FUNCTION,
    )
