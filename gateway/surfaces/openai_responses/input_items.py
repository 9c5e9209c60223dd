"""Input items of a request, as their JSON has them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, Raw, Struct

from gateway.surfaces.openai_responses.parts import PARTS_MAX, Part
from services.common.known_members import OTHER_TAG

ITEMS_MAX = 10_000
"""The most items that are decoded; the service accepts 2,000 messages."""

_NONE = Raw()

Parts: TypeAlias = str | Annotated[list[Part], Meta(max_length=PARTS_MAX)]


class _Item(Struct, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    """An item. The tag is its `type`. ID and status are those of an answer that comes back."""

    id: Raw = _NONE
    status: Raw = _NONE


class MessageInput(_Item, tag="message", kw_only=True):
    """A message. Its type may be left out."""

    role: str
    content: Parts


class FunctionCall(_Item, tag="function_call", kw_only=True):
    """Call of a function."""

    call_id: str
    name: str
    arguments: str = ""
    namespace: str | None = None


class CustomCall(_Item, tag="custom_tool_call", kw_only=True):
    """Call of a custom tool."""

    call_id: str
    name: str
    input: str = ""
    namespace: str | None = None


class FunctionOutput(_Item, tag="function_call_output", kw_only=True):
    """Result of a function."""

    call_id: str
    output: Parts


class CustomOutput(_Item, tag="custom_tool_call_output", kw_only=True):
    """Result of a custom tool."""

    call_id: str
    output: Parts


class SummaryText(Struct, forbid_unknown_fields=True, kw_only=True):
    """A part of a summary."""

    text: str
    type: str = "summary_text"


class ReasoningText(Struct, forbid_unknown_fields=True, kw_only=True):
    """A part of open reasoning."""

    text: str
    type: str = "reasoning_text"


class ReasoningInput(Struct, forbid_unknown_fields=True, tag_field="type", tag="reasoning"):
    """Reasoning of an earlier answer."""

    id: str | None = None
    status: Raw = _NONE
    summary: list[SummaryText] | None = None
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None


class ItemReference(Struct, forbid_unknown_fields=True, tag_field="type", tag="item_reference"):
    """Reference to an item that the provider keeps."""

    id: str


class OtherItem(Struct, forbid_unknown_fields=True, tag_field="type", tag=OTHER_TAG):
    """Item of another type."""

    json: Raw


Call: TypeAlias = FunctionCall | CustomCall
Output: TypeAlias = FunctionOutput | CustomOutput
Item: TypeAlias = MessageInput | Call | Output | ReasoningInput | ItemReference | OtherItem
