"""Conversation: Anthropic's messages and system instructions to the domain's messages.

A result of a tool becomes a message of its own, before the rest of its turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from gateway.errors import invalid
from gateway.surfaces.anthropic_messages.blocks import (
    BLOCKS_MAX,
    Block,
    BlockReader,
    RedactedBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    tool_call,
)
from gateway.surfaces.anthropic_messages.sealed_reasoning import read_seals
from gateway.surfaces.images import ImageReader
from gateway.surfaces.json_fields import json_of, one_of
from gateway.surfaces.unknown_members import Reader, to_json
from services.common.known_members import item, member
from services.domain.conversation import ContentPart, Message, Role, TextPart, ToolCall

MESSAGES_MAX = 10_000
"""The most messages that are decoded; the service accepts 2,000."""

ROLES: Sequence[Literal["user", "assistant", "system"]] = ("user", "assistant", "system")
"""Authors of messages. `system`: instructions in the middle of a conversation."""


class _Message(Struct, forbid_unknown_fields=True):
    role: str
    content: str | Annotated[list[Block], Meta(max_length=BLOCKS_MAX)]


_MESSAGES: Reader[list[_Message]] = Reader(Annotated[list[_Message], Meta(max_length=MESSAGES_MAX)])
_System = str | Annotated[list[TextBlock], Meta(max_length=BLOCKS_MAX)]
_SYSTEM: Reader[_System] = Reader(_System)
_BILLING_HEADER = "x-anthropic-billing-header:"


class Instructions(NamedTuple):
    """The field `system`."""

    messages: list[Message]
    """A message with the instructions, or none where they are empty."""
    billing_header: str
    """The line with which Claude Code begins them, which is no instruction and differs between
    conversations: in the prompt it would keep a provider's cache from matching."""


def decode_system(raw: Raw, images: ImageReader) -> Instructions:
    """Decode the field `system`. Raises ApiError: the field has another shape."""
    system, unknown = _SYSTEM.read("system", raw)
    header = ""
    if not isinstance(system, str) and system and system[0].text.startswith(_BILLING_HEADER):
        header = system[0].text
        system, unknown = system[1:], unknown and unknown[1:]
    if not system:
        return Instructions([], header)
    content = BlockReader(images).contents("system", system, unknown)
    return Instructions([Message(role="system", content=content)], header)


def decode_messages(raw: Raw, images: ImageReader) -> list[Message]:
    """Decode the field `messages`.

    Raises ApiError: a message has another shape. The error's `param` is its path.
    """
    messages, unknown = _MESSAGES.read("messages", raw)
    reader = _ConversationReader(images)
    return [
        made
        for index, each in enumerate(messages)
        for made in reader.messages(f"messages[{index}]", each, item(unknown, index))
    ]


class _ConversationReader:
    """Reader of one conversation's messages. `unknown` are unknown members."""

    def __init__(self, images: ImageReader) -> None:
        self._blocks = BlockReader(images)

    def messages(self, at: str, message: _Message, unknown: Any) -> list[Message]:
        """Return the messages that a message becomes."""
        role = one_of(f"{at}.role", message.role, ROLES)
        if isinstance(message.content, str):
            content: list[ContentPart] = [TextPart(text=message.content)]
            return [Message(role=role, content=content, extra_json=_own(unknown))]
        within, of_blocks = f"{at}.content", member(unknown, "content")
        if role == "assistant":
            made = [self._assistant(within, message.content, of_blocks)]
        else:
            made = self._others(within, role, message.content, of_blocks)
        return [*made[:-1], replace(made[-1], extra_json=_merged(made[-1].extra_json, unknown))]

    def _assistant(self, at: str, blocks: list[Block], unknown: Any) -> Message:
        parts: list[ContentPart] = []
        calls: list[ToolCall] = []
        members: dict[str, object] = {}
        for index, block in enumerate(blocks):
            where, of_block = f"{at}[{index}]", item(unknown, index)
            if isinstance(block, ToolUseBlock):
                calls.append(tool_call(where, block, of_block))
            elif isinstance(block, ToolResultBlock):
                raise invalid(where, f"Invalid {where}: results of tools are the user's.")
            elif isinstance(block, RedactedBlock):
                members |= of_block or {}
                if mark := json_of(block.cache_control):
                    members["cache_control"] = Raw(mark)
            else:
                parts.append(self._blocks.part(where, block, of_block))
        seals = read_seals(at, blocks)
        return Message(
            role="assistant",
            content=parts,
            tool_calls=calls,
            reasoning_state=seals.reasoning_state,
            reasoning_details_json=seals.reasoning_details_json,
            extra_json=to_json(members),
        )

    def _others(self, at: str, role: Role, blocks: list[Block], unknown: Any) -> list[Message]:
        results: list[Message] = []
        parts: list[ContentPart] = []
        for index, block in enumerate(blocks):
            where, of_block = f"{at}[{index}]", item(unknown, index)
            if isinstance(block, ToolResultBlock):
                results.append(self._result(where, block, of_block))
            elif isinstance(block, ToolUseBlock | ThinkingBlock | RedactedBlock):
                raise invalid(where, f"Invalid {where}: only the assistant has such blocks.")
            else:
                parts.append(self._blocks.part(where, block, of_block))
        if parts or not results:
            results.append(Message(role=role, content=parts))
        return results

    def _result(self, at: str, block: ToolResultBlock, unknown: Any) -> Message:
        of_content = member(unknown, "content")
        own = {name: value for name, value in (unknown or {}).items() if name != "content"}
        return Message(
            role="tool",
            tool_call_id=block.tool_use_id,
            content=self._blocks.contents(f"{at}.content", block.content, of_content),
            extra_json=to_json(own),
            cache_control_json=json_of(block.cache_control),
            is_error=bool(block.is_error),
        )


def _own(unknown: Any) -> bytes:
    return to_json({name: value for name, value in (unknown or {}).items() if name != "content"})


def _merged(extra_json: bytes, unknown: Any) -> bytes:
    """Return the members of a struct together with those of the message that it is of."""
    own = _own(unknown)
    if not own or not extra_json:
        return own or extra_json
    members = msgspec.json.Decoder(dict[str, Raw]).decode
    return msgspec.json.encode(members(own) | members(extra_json))
