"""Messages: OpenAI's conversation to the domain's.

Parts of earlier answers are accepted in every form in which clients of OpenAI, Anthropic and
OpenRouter send them back: `reasoning_content`, `reasoning`, thinking parts, `reasoning_state` and
`reasoning_details`; tool calls, and function calls from before there were tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.errors import invalid
from gateway.http.strict_json import is_null
from gateway.surfaces.json_fields import one_of, read
from gateway.surfaces.openai_chat.images import ImageReader
from services.domain.conversation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImageDetail,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
)

MESSAGES_MAX = 10_000
"""The most messages that are decoded; the service accepts 2,000."""

PARTS_MAX = 2_048
"""The most parts of a message that are decoded; the service accepts 256."""

_NONE = Raw()


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

MESSAGE_ROLES: Sequence[Literal["system", "developer", "user", "assistant", "tool", "function"]] = (
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
)
"""With `function`, the name that OpenAI gave to tools before it had that role."""

DETAILS: Mapping[Literal["auto", "low", "high"], ImageDetail] = {
    "auto": "",
    "low": "low",
    "high": "high",
}


def decode_messages(raw: Raw, images: ImageReader) -> list[Message]:
    """Decode the JSON of the field `messages`.

    Raises:
        ApiError: a message has another shape. The error's `param` is its path.
    """
    reader = _Reader(images)
    messages = read("messages", raw, _MESSAGES)
    return [reader.message(f"messages[{index}]", each) for index, each in enumerate(messages)]


class _Reader:
    """Reader of one conversation's messages, in order."""

    def __init__(self, images: ImageReader) -> None:
        self._images = images
        self._function_calls: dict[str, str] = {}

    def message(self, at: str, message: _Message) -> Message:
        role = one_of(f"{at}.role", message.role, MESSAGE_ROLES)
        name, tool_call_id = message.name or "", message.tool_call_id or ""
        content = self._content(at, message)
        tool_calls = [
            _tool_call(f"{at}.tool_calls[{index}]", call)
            for index, call in enumerate(message.tool_calls or ())
        ]
        if message.function_call is not None:
            tool_calls.append(self._function_call(message.function_call))
        if role == "function":
            role, tool_call_id = "tool", self._function_calls.get(name, "")
        return Message(
            role=role,
            content=content,
            name=name,
            tool_calls=tool_calls,
            tool_call_id=tool_call_id,
            reasoning_state=message.reasoning_state or "",
            reasoning_details_json=_json(message.reasoning_details),
            refusal=_refusal(message),
        )

    def _content(self, at: str, message: _Message) -> list[ContentPart]:
        parts = message.content
        made: list[ContentPart] = []
        reasoning = message.reasoning_content or message.reasoning
        # A client that sends our answer back unchanged has the reasoning in both places.
        if reasoning and not _has_thinking(parts):
            made.append(ReasoningPart(text=reasoning))
        if isinstance(parts, str):
            made.append(TextPart(text=parts))
            return made
        for index, part in enumerate(parts or ()):
            if not isinstance(part, _RefusalPart):
                made.append(self._part(f"{at}.content[{index}]", part))
        return made

    def _part(
        self, at: str, part: _TextPart | _ImagePart | _AudioPart | _FilePart | _ThinkingPart
    ) -> ContentPart:
        mark = _json(part.cache_control)
        match part:
            case _TextPart():
                return TextPart(text=part.text, cache_control_json=mark)
            case _ThinkingPart():
                return ReasoningPart(text=part.thinking, cache_control_json=mark)
            case _ImagePart():
                return self._image(f"{at}.image_url", part.image_url, mark)
            case _AudioPart():
                audio = part.input_audio
                return AudioPart(base64=audio.data, format=audio.format, cache_control_json=mark)
            case _FilePart():
                return _file(f"{at}.file", part.file, mark)

    def _image(self, at: str, image: str | _ImageUrl, mark: bytes) -> ImagePart:
        detail: ImageDetail = ""
        if isinstance(image, str):
            source = self._images.read(at, image)
        else:
            source = self._images.read(f"{at}.url", image.url)
            if image.detail is not None:
                detail = DETAILS[one_of(f"{at}.detail", image.detail, DETAILS)]
        return ImagePart(
            uri=source.uri,
            base64=source.base64,
            mime_type=source.mime_type,
            detail=detail,
            cache_control_json=mark,
        )

    def _function_call(self, call: _FunctionCall) -> ToolCall:
        # Function calls had no IDs, which tools need: the answer names the function.
        call_id = f"call_{len(self._function_calls)}_{call.name}"
        self._function_calls[call.name] = call_id
        return ToolCall(id=call_id, name=call.name, arguments=call.arguments or "")


def _has_thinking(parts: str | _Parts | None) -> bool:
    return isinstance(parts, list) and any(isinstance(part, _ThinkingPart) for part in parts)


def _refusal(message: _Message) -> str:
    refusal, parts = message.refusal or "", message.content
    if not isinstance(parts, list):
        return refusal
    return refusal + "".join([part.refusal for part in parts if isinstance(part, _RefusalPart)])


def _file(at: str, source: _FileSource, mark: bytes) -> FilePart:
    filename = source.filename or ""
    if source.file_id is not None:
        return FilePart(file_id=source.file_id, filename=filename, cache_control_json=mark)
    if source.file_data is not None:
        return FilePart(uri=source.file_data, filename=filename, cache_control_json=mark)
    raise invalid(at, f"Invalid {at}: expected `file_data` or `file_id`.")


def _tool_call(at: str, call: _ToolCall) -> ToolCall:
    if (custom := call.custom) is not None:
        arguments = custom.input or ""
        return ToolCall(id=call.id, name=custom.name, arguments=arguments, type="custom")
    if (function := call.function) is not None:
        arguments = function.arguments or ""
        return ToolCall(id=call.id, name=function.name, arguments=arguments, type="function")
    raise invalid(at, f"Invalid {at}: expected `function` or `custom`.")


def _json(raw: Raw) -> bytes:
    return b"" if is_null(raw) else bytes(raw)
