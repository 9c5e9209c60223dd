"""Conversation: messages and their parts.

The words of a closed set, such as roles, are OpenAI's. An empty word means that none was given. A
number that a newer contract has and this one does not arrives as its digits, so that nothing is
lost; validation refuses it.

Members that no field has are in `extra_json` at their places in OpenAI's form, without those that
fields have: `{"function":{"x":1},"y":2}` of a tool call. Those of a list's items are in a list with
one object for each item.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Role = Literal["", "system", "developer", "user", "assistant", "tool"]
"""Author of a message."""

ImageDetail = Literal["", "low", "high", "original"]
"""Level of detail at which a model processes an image. Empty: the provider decides."""

ToolType = Literal["", "function", "custom"]
"""Type of a tool. Empty: a function."""


class Part(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Fields that all parts of a message have. Encoded as an array: its name, then its fields."""

    cache_control_json: bytes = b""
    """Mark at the end of a prefix that the provider should cache: a JSON object in its form."""
    extra_json: bytes = b""
    """Members of the part that no field has: a JSON object in the caller's form."""


class TextPart(Part, frozen=True):
    """Plain text."""

    text: str = ""


class ReasoningPart(Part, frozen=True):
    """Reasoning of a model before its answer. Empty if the provider hides it."""

    text: str = ""


class ImagePart(Part, frozen=True):
    """Image, by exactly one of `uri`, `data` and `base64`."""

    uri: str = ""
    """An `https` or `http` URL. The provider fetches it; the gateway does not."""
    data: bytes = b""
    """The bytes of the image."""
    base64: str = ""
    """The image as base64 text with padding. The gateway does not decode it."""
    mime_type: str = ""
    """IANA media type, such as `image/png`. Required with `data` and `base64`."""
    detail: ImageDetail = ""


class AudioPart(Part, frozen=True):
    """Audio clip."""

    base64: str = ""
    """The audio as base64 text with padding."""
    format: str = ""
    """`wav` or `mp3`."""


class FilePart(Part, frozen=True):
    """Document, by exactly one of `uri` and `file_id`."""

    uri: str = ""
    """A data URL, or an `https` URL that the provider fetches."""
    file_id: str = ""
    """The provider's ID of an uploaded file."""
    filename: str = ""


class OtherPart(Part, frozen=True):
    """Part of another type, such as `video_url`."""

    json: bytes = b""
    """A JSON object in the form of OpenAI's API, or in the provider's, without its cache mark."""


ContentPart: TypeAlias = TextPart | ImagePart | ReasoningPart | AudioPart | FilePart | OtherPart


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Tool call of a model."""

    id: str
    """ID, unique in the conversation."""
    name: str
    """Name of the tool."""
    arguments: str = ""
    """Arguments as the model generated them: JSON text, not validated. For a custom tool, its
    free-text input."""
    type: ToolType = ""
    extra_json: bytes = b""
    """Members of the tool call that no field has: a JSON object in the form of OpenAI's API."""
    extra_content_json: bytes = b""
    """Data that the provider wants back with the call, such as the signature of Gemini's sealed
    reasoning: the JSON object `extra_content`."""
    cache_control_json: bytes = b""
    """Mark at the end of the tool call. See `Part.cache_control_json`."""


class Message(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One turn of a conversation."""

    role: Role
    content: list[ContentPart] = []
    """Parts, in order. Empty only for an assistant that called tools."""
    name: str = ""
    """Name of the author, to distinguish participants of the same role."""
    tool_calls: list[ToolCall] = []
    """Tool calls of the assistant."""
    tool_call_id: str = ""
    """ID of the tool call that this message answers. Required for the role `tool`."""
    reasoning_state: str = ""
    """Reasoning of an assistant's turn in the provider's sealed form, as an opaque string."""
    reasoning_details_json: bytes = b""
    """Reasoning in OpenRouter's form: the JSON array `reasoning_details`. In an answer only where
    `Thinking.reasoning_details` asks for it."""
    refusal: str = ""
    """Text of a refusal to answer."""
    extra_json: bytes = b""
    """Members of the message that no field has: a JSON object in the form of OpenAI's API."""
    cache_control_json: bytes = b""
    """Mark at the end of the message. See `Part.cache_control_json`."""
    is_error: bool = False
    """Whether the tool failed. Only for the role `tool`."""
