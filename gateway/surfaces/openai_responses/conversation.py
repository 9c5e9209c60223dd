"""Conversation: instructions and input items to the domain's messages.

Items of one turn of the assistant become one message: its reasoning, text and calls, until a
message of another author or a result of a tool follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw

from gateway.errors import invalid
from gateway.surfaces.images import ImageReader
from gateway.surfaces.json_fields import one_of
from gateway.surfaces.openai_responses.assistant_turn import AssistantTurn
from gateway.surfaces.openai_responses.input_items import (
    ITEMS_MAX,
    CustomCall,
    CustomOutput,
    FunctionCall,
    FunctionOutput,
    Item,
    ItemReference,
    MessageInput,
    OtherItem,
    ReasoningInput,
)
from gateway.surfaces.openai_responses.parts import PartReader
from gateway.surfaces.unknown_members import Reader, to_json, with_types
from services.common.known_members import item, member
from services.domain.conversation import Message, TextPart

ROLES: Sequence[Literal["user", "assistant", "system", "developer"]] = (
    "user",
    "assistant",
    "system",
    "developer",
)
"""Authors of messages."""

REASONING = "rs_"
"""How IDs of reasoning begin. A conversation can go on without its reasoning, not without texts."""

_INPUT: Reader[str | list[Item]] = Reader(str | Annotated[list[Item], Meta(max_length=ITEMS_MAX)])


def decode_instructions(raw: Raw, images: ImageReader) -> list[Message]:
    """Decode the field `instructions`: a text, or items as of `input`.

    Raises ApiError: the field has another shape.
    """
    if bytes(raw)[:1] == b'"':
        text = msgspec.json.decode(raw, type=str)
        return [Message(role="system", content=[TextPart(text=text)])] if text else []
    return _ConversationReader("instructions", images).messages(raw)


def decode_input(raw: Raw, images: ImageReader) -> list[Message]:
    """Decode the field `input`.

    Raises ApiError: an item has another shape. The error's `param` is its path.
    """
    return _ConversationReader("input", images).messages(raw)


class _ConversationReader:
    """Reader of one conversation's items. `unknown` are unknown members."""

    def __init__(self, param: str, images: ImageReader) -> None:
        self._param = param
        self._parts = PartReader(images)
        self._turn = AssistantTurn(self._parts)
        self._messages: list[Message] = []

    def messages(self, raw: Raw) -> list[Message]:
        """Return the messages that the items make."""
        items, unknown = _INPUT.read(self._param, with_types(raw, "message"))
        if isinstance(items, str):
            return [Message(role="user", content=[TextPart(text=items)])]
        for index, each in enumerate(items):
            self._add(f"{self._param}[{index}]", each, item(unknown, index))
        self._end_turn()
        return self._messages

    def _add(self, at: str, each: Item, unknown: Any) -> None:
        match each:
            case MessageInput():
                self._message(at, each, unknown)
            case FunctionCall() | CustomCall():
                self._turn.add_call(each, unknown)
            case FunctionOutput() | CustomOutput():
                self._end_turn()
                self._messages.append(self._output(at, each, unknown))
            case ReasoningInput():
                if self._turn.ends_before_reasoning(each):
                    self._end_turn()
                self._turn.add_reasoning(at, each, unknown)
            case OtherItem():
                self._turn.add_other(each)
            case ItemReference() if each.id.startswith(REASONING):
                self._turn.add_reference(each)
            case ItemReference():
                message = (
                    f"Item with id '{each.id[:64]}' not found. Items are not persisted when "
                    "`store` is set to false, as it is here. Send the item itself."
                )
                raise invalid(f"{at}.id", message)

    def _message(self, at: str, each: MessageInput, unknown: Any) -> None:
        role = one_of(f"{at}.role", each.role, ROLES)
        if role == "assistant":
            if self._turn.ends_before_message:
                self._end_turn()
            self._turn.add_message(f"{at}.content", each, unknown)
            return
        self._end_turn()
        content = self._parts.contents(f"{at}.content", each.content, member(unknown, "content"))
        own = to_json(without(unknown, "content"))
        self._messages.append(Message(role=role, content=content, extra_json=own))

    def _output(self, at: str, each: FunctionOutput | CustomOutput, unknown: Any) -> Message:
        content = self._parts.contents(f"{at}.output", each.output, member(unknown, "output"))
        return Message(
            role="tool",
            tool_call_id=each.call_id,
            content=content,
            extra_json=to_json(without(unknown, "output")),
        )

    def _end_turn(self) -> None:
        self._messages += self._turn.messages()
        self._turn = AssistantTurn(self._parts)


def without(unknown: Any, name: str) -> dict[str, object]:
    """Return the unknown members of an object but for those of its member `name`."""
    return {key: value for key, value in (unknown or {}).items() if key != name}
