"""Assistant's turn: items of an earlier answer as one message."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.surfaces.json_fields import json_of
from gateway.surfaces.openai_responses.answer_members import ITEM
from gateway.surfaces.openai_responses.input_items import (
    CustomCall,
    FunctionCall,
    ItemReference,
    MessageInput,
    OtherItem,
    ReasoningInput,
)
from gateway.surfaces.openai_responses.namespaces import QualifiedName
from gateway.surfaces.openai_responses.parts import PartReader, refusal_of
from gateway.surfaces.reasoning_places import NATIVE, interleaved_state
from gateway.surfaces.reasoning_seals import unsealed_details
from gateway.surfaces.unknown_members import to_json
from services.common import sealed_blocks
from services.common.known_members import item, member
from services.common.reasoning_fragments import Detail, gathered, word
from services.common.seal_prefixes import DETAILS_PREFIX, STATE_PREFIX
from services.domain.conversation import (
    ContentPart,
    Message,
    OtherPart,
    ReasoningPart,
    TextPart,
    ToolCall,
)

OPENAI_FORMAT = "openai-responses-v1"
"""Format of OpenAI's own reasoning in `reasoning_details`."""


class AssistantTurn:
    """Message of the assistant, item by item. `unknown` are unknown members."""

    def __init__(self, parts: PartReader) -> None:
        self._reader = parts
        self._parts: list[ContentPart] = []
        self._calls: list[ToolCall] = []
        self._refusals: list[str] = []
        self._details: list[Detail] = []
        self._places: list[sealed_blocks.Block] = []
        self._state = ""
        self._mark = b""
        """JSON of the last refusal's `cache_control`."""
        self._members: dict[str, object] = {}
        self._begun = False
        self._has_message = False
        self._has_other = False

    @property
    def ends_before_message(self) -> bool:
        """Whether a further message is a turn of its own: nothing but a message precedes it."""
        return self._has_message and not self._calls

    def ends_before_reasoning(self, each: ReasoningInput) -> bool:
        """Whether reasoning begins a turn of its own.

        OpenAI wants its sealed reasoning back directly before the item that it led to.
        """
        seal = each.encrypted_content or ""
        has_led = self._has_message or bool(self._calls) or self._has_other
        return has_led and bool(seal) and not seal.startswith((STATE_PREFIX, DETAILS_PREFIX))

    def add_message(self, at: str, each: MessageInput, unknown: Any) -> None:
        """Add text and refusals."""
        self._begun = self._has_message = True
        of_content = member(unknown, "content")
        self._members |= {key: v for key, v in (unknown or {}).items() if key != "content"}
        if isinstance(each.content, str):
            self._add_part(TextPart(text=each.content))
            return
        for index, part in enumerate(each.content):
            refusal = refusal_of(part)
            if refusal is not None:
                self._refusals.append(refusal)
                self._members |= item(of_content, index) or {}
                self._mark = json_of(part.cache_control) or self._mark
            else:
                self._add_part(self._reader.part(f"{at}[{index}]", part, item(of_content, index)))

    def add_call(self, each: FunctionCall | CustomCall, unknown: Any) -> None:
        """Add a call of a tool."""
        self._begun = True
        is_custom = isinstance(each, CustomCall)
        self._places.append(sealed_blocks.SealedCall(id=each.call_id))
        self._calls.append(
            ToolCall(
                id=each.call_id,
                name=QualifiedName(each.name, each.namespace or "").flat,
                arguments=each.input if isinstance(each, CustomCall) else each.arguments,
                type="custom" if is_custom else "function",
                extra_json=to_json(unknown),
            )
        )

    def add_reasoning(self, at: str, each: ReasoningInput, unknown: Any) -> None:
        """Add reasoning: what seals it, or else its text."""
        self._begun = True
        self._has_message = False
        self._members |= unknown or {}
        seal = each.encrypted_content or ""
        texts = "".join(part.text for part in each.content or ())
        summary = "".join(part.text for part in each.summary or ())
        if seal.startswith(STATE_PREFIX):
            self._state = seal.removeprefix(STATE_PREFIX)
        elif seal.startswith(DETAILS_PREFIX):
            fragments = unsealed_details(f"{at}.encrypted_content", seal)
            self._add_sealed(gathered(fragments))
        elif seal:
            self._add_openai(each, seal)
        text = texts or ("" if seal else summary)
        if text:
            self._parts.append(ReasoningPart(text=text))

    def add_reference(self, each: ItemReference) -> None:
        """Add reasoning that is not kept here, as an unknown member, so that it has a note."""
        self._begun = True
        self._members["item_reference"] = each.id

    def add_other(self, each: OtherItem) -> None:
        """Add an item of another type, as it is."""
        self._begun = self._has_other = True
        members = {"type": ITEM, "item": each.json}
        self._parts.append(OtherPart(json=msgspec.json.encode(members)))

    def messages(self) -> list[Message]:
        """Return the message, or none where there were no items."""
        if not self._begun:
            return []
        state = self._state or interleaved_state(self._places)
        details = msgspec.json.encode(self._details) if self._details else b""
        return [
            Message(
                role="assistant",
                content=self._parts,
                tool_calls=self._calls,
                reasoning_state=state,
                reasoning_details_json=details,
                refusal="".join(self._refusals),
                extra_json=to_json(self._members),
                cache_control_json=self._mark,
            )
        ]

    def _add_part(self, part: ContentPart) -> None:
        self._parts.append(part)
        if isinstance(part, TextPart) and part.text:
            self._places.append(sealed_blocks.Text(length=len(part.text)))

    def _add_sealed(self, details: list[Detail]) -> None:
        for detail in details:
            if word(detail, "format").startswith(NATIVE):
                text, data, seal = (word(detail, name) for name in ("text", "data", "signature"))
                if data:
                    self._places.append(sealed_blocks.Redacted(data=data))
                elif seal:
                    self._places.append(sealed_blocks.Thought(text=text, signature=seal))
            # Items of several answers would continue each other by their index.
            self._details.append({**detail, "index": len(self._details)})

    def _add_openai(self, each: ReasoningInput, seal: str) -> None:
        texts = [
            *({"type": "reasoning.summary", "summary": part.text} for part in each.summary or ()),
            *({"type": "reasoning.text", "text": part.text} for part in each.content or ()),
        ]
        for content in (*texts, {"type": "reasoning.encrypted", "data": seal}):
            origin = {"format": OPENAI_FORMAT, "index": len(self._details)}
            own_id = {} if each.id is None else {"id": each.id}
            self._details.append({**content, **own_id, **origin})
