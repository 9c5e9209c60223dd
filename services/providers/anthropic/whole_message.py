"""Whole message of the API in the domain's form, without events in between.

Equal to the fold of the stream that says the same.
"""

from __future__ import annotations

import msgspec

from services.domain.completion import Choice
from services.domain.conversation import ContentPart, Message, ReasoningPart, TextPart, ToolCall
from services.providers.anthropic import wire
from services.providers.anthropic.blocks import (
    OpenBlock,
    given_arguments,
    open_block,
    reasoning_details,
    sealed_reasoning,
    tool_call_id,
)
from services.providers.anthropic.extras import Extras
from services.providers.finish_reasons import finish_reason, raise_if_failure
from services.providers.translate.reasoning_details import encode
from services.providers.unusable_answers import unreadable


def choice_of(message: wire.Message, extras: Extras, *, details: bool) -> Choice:
    """Return the only choice of an answer. With `details` it has OpenRouter's form, too.

    Members of blocks that have no field are added to `extras`.

    Raises UPSTREAM_BAD_RESPONSE if a block cannot be read, and UpstreamError if the message says
    that the provider failed.
    """
    content = _Content(message.id, extras)
    for block in message.content or ():
        content.add(block)
    native = message.stop_reason or ""
    raise_if_failure(native)
    explanation = message.stop_details.explanation if message.stop_details else None
    return Choice(
        message=Message(
            role="assistant",
            content=content.parts(),
            tool_calls=content.tool_calls,
            reasoning_state=sealed_reasoning(content.blocks),
            reasoning_details_json=encode(reasoning_details(content.blocks)) if details else b"",
            refusal=(explanation or "") if native == "refusal" else "",
            extra_json=extras.message_json(content.blocks),
        ),
        finish_reason=finish_reason(native),
        native_finish_reason=native,
        extra_json=extras.choice_json,
    )


class _Content:
    """Content blocks of a message."""

    def __init__(self, message_id: str | None, extras: Extras) -> None:
        self._message_id = message_id
        self._extras = extras
        self.blocks: list[OpenBlock] = []
        self.tool_calls: list[ToolCall] = []
        self._call_ids: set[str] = set()
        self._texts: list[str] = []
        self._reasoning: list[str] = []

    def add(self, content: msgspec.Raw) -> None:
        """Add a block."""
        if wire.read(content, wire.KIND).type not in wire.BLOCK_KINDS:
            self._extras.add_block(content)
            return
        block = wire.read(content, wire.BLOCK)
        opened = open_block(block, self.blocks)
        members = self._extras.add_read_block(opened, content)
        if block.type == "tool_use":
            opened.call_id = tool_call_id(block, self._message_id, self._call_ids)
            self.tool_calls.append(_tool_call(opened.call_id, block, members))
        self.blocks.append(opened)
        if block.text:
            opened.length = len(block.text)
            self._texts.append(block.text)
        if block.thinking:
            opened.pieces.append(block.thinking)
            self._reasoning.append(block.thinking)

    def parts(self) -> list[ContentPart]:
        """Reasoning first, then the text."""
        parts: list[ContentPart] = []
        if self._reasoning:
            parts.append(ReasoningPart(text="".join(self._reasoning)))
        if self._texts:
            parts.append(TextPart(text="".join(self._texts)))
        return parts


def _tool_call(call_id: str, block: wire.Block, members: wire.Json) -> ToolCall:
    try:
        arguments = given_arguments(block).decode()
    except UnicodeDecodeError as error:  # msgspec does not check values that it skips.
        raise unreadable() from error
    return ToolCall(
        id=call_id,
        name=block.name or "",
        arguments=arguments,
        extra_json=msgspec.json.encode(members) if members else b"",
    )
