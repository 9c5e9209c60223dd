"""Content blocks of a request: text, images, documents, reasoning, and calls of tools.

Blocks of other types, such as those of tools that the provider runs itself, stay in Anthropic's
form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from gateway.errors import invalid
from gateway.surfaces.anthropic_messages.sources import (
    DocumentBlock,
    ImageBlock,
    document_part,
    image_part,
)
from gateway.surfaces.images import ImageReader
from gateway.surfaces.json_fields import json_of
from gateway.surfaces.unknown_members import to_json
from services.common.known_members import OTHER_TAG, item
from services.domain.conversation import ContentPart, OtherPart, ReasoningPart, TextPart, ToolCall

BLOCKS_MAX = 2_048
"""The most blocks of a message that are decoded; the service accepts 256."""

_NONE = Raw()
_DIRECT = b'{"type":"direct"}'
"""The usual caller of a tool, the model itself, in a call that clients send back."""


class _Block(Struct, forbid_unknown_fields=True, tag_field="type"):
    """A block. The tag is its `type`."""

    cache_control: Raw = _NONE


class TextBlock(_Block, tag="text", kw_only=True):
    """Text."""

    text: str
    citations: Raw = _NONE


class ThinkingBlock(_Block, tag="thinking", kw_only=True):
    """Reasoning of an earlier turn, with what seals it."""

    thinking: str
    signature: str | None = None


class RedactedBlock(_Block, tag="redacted_thinking", kw_only=True):
    """Reasoning that only its provider can read."""

    data: str


class ToolUseBlock(_Block, tag="tool_use", kw_only=True):
    """Call of a tool."""

    id: str
    name: str
    input: Raw = _NONE
    caller: Raw = _NONE


class OtherBlock(_Block, tag=OTHER_TAG, kw_only=True):
    """Block of another type."""

    json: Raw


InResult: TypeAlias = TextBlock | ImageBlock | DocumentBlock | OtherBlock
"""Blocks in the result of a tool."""


class ToolResultBlock(_Block, tag="tool_result", kw_only=True):
    """Result of a tool."""

    tool_use_id: str
    content: str | list[InResult] | None = None
    is_error: bool | None = None


Block: TypeAlias = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | ThinkingBlock
    | RedactedBlock
    | ToolUseBlock
    | ToolResultBlock
    | OtherBlock
)
"""Blocks of a message."""

PlainBlock: TypeAlias = InResult | ThinkingBlock
"""Blocks that become parts of a message."""


class BlockReader:
    """Reader of blocks, with the images of one request. `unknown` are unknown members."""

    def __init__(self, images: ImageReader) -> None:
        self._images = images

    def contents(
        self, at: str, blocks: str | Sequence[InResult] | None, unknown: Any
    ) -> list[ContentPart]:
        """Return the parts of a text or of blocks: at least one, which may be an empty text."""
        if isinstance(blocks, str) or not blocks:
            return [TextPart(text=blocks if isinstance(blocks, str) else "")]
        return [
            self.part(f"{at}[{index}]", block, item(unknown, index))
            for index, block in enumerate(blocks)
        ]

    def part(self, at: str, block: PlainBlock, unknown: Any) -> ContentPart:
        """Return the part that a block becomes.

        Raises ApiError: the block has an image that is malformed, or exceeds a limit.
        """
        mark, extra = json_of(block.cache_control), to_json(unknown)
        match block:
            case TextBlock():
                members = _text_members(block, unknown)
                return TextPart(text=block.text, cache_control_json=mark, extra_json=members)
            case ThinkingBlock():
                return ReasoningPart(text=block.thinking, cache_control_json=mark, extra_json=extra)
            case ImageBlock():
                return image_part(at, block, unknown, self._images)
            case DocumentBlock():
                return document_part(block, unknown)
            case OtherBlock():
                return OtherPart(json=bytes(block.json), cache_control_json=mark)


def tool_call(at: str, block: ToolUseBlock, unknown: Any) -> ToolCall:
    """Return the call of a tool. Raises ApiError: its input is no object."""
    arguments = json_of(block.input) or b"{}"
    if not arguments.startswith(b"{"):
        raise invalid(f"{at}.input", f"Invalid {at}.input: expected an object.")
    caller = json_of(block.caller)
    if caller and msgspec.json.format(caller, indent=-1) != _DIRECT:
        unknown = {**(unknown or {}), "caller": Raw(caller)}
    return ToolCall(
        id=block.id,
        name=block.name,
        arguments=arguments.decode(),
        extra_json=to_json(unknown),
        cache_control_json=json_of(block.cache_control),
    )


def _text_members(block: TextBlock, unknown: Any) -> bytes:
    """Return the unknown members of a text, with its citations unless they say nothing."""
    citations = json_of(block.citations)
    if citations and citations[1:-1].strip():
        unknown = {**(unknown or {}), "citations": Raw(citations)}
    return to_json(unknown)
