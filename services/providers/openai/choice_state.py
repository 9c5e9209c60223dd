"""State of one choice that whole answers and streams have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from services.common.json_errors import NOT_JSON
from services.common.reasoning_fragments import Detail
from services.domain.events import FinishReason, ReasoningDelta, RefusalDelta, TextDelta
from services.providers.finish_reasons import checked_reason
from services.providers.openai import wire
from services.providers.openai.extras import Json, decoded, merge, replaced
from services.providers.openai.reasoning import Reasoning
from services.providers.openai.tool_calls import ToolCalls
from services.providers.unusable_answers import unreadable

StatePacker = Callable[[list[Detail]], str]
"""Function that packs `reasoning_details` into the reasoning state, which callers send back."""

_REASONING = frozenset({"reasoning", "reasoning_text", "thinking"})
"""Types of parts whose `text` is reasoning."""

PlainDelta = type[TextDelta | ReasoningDelta | RefusalDelta]
"""Kind of a piece of text."""


class ChoiceState:
    """State of one choice. `seed` makes the IDs of tool calls where the provider sends none."""

    def __init__(self, index: int, seed: str, *, details: bool = False) -> None:
        """Create the state. With `details` the answer has OpenRouter's form of reasoning, too."""
        self.index = index
        self.tool_calls = ToolCalls(seed, index)
        self.reasoning = Reasoning([] if details else None)
        self.finish_reason: FinishReason = "stop"
        self.native_finish_reason = ""
        self.ended = False
        """Whether a finish reason was received, and nothing more of the answer after it."""
        self.reopened = False
        """Whether more of the answer came after a finish reason."""
        self.extra: Json = {}
        """Members of the message that the contract has no fields for."""
        self.members: Json = {}
        """Members of the choice that the contract has no fields for."""

    def add_members(self, choice: wire.Choice, unknown: Any) -> bool:
        """Take members of a choice without a field. Returns whether any is new or has changed."""
        if not unknown and wire.OF_CHOICE.values(choice) == wire.OF_CHOICE.unset:
            return False
        members = wire.OF_CHOICE.of(choice) | (unknown or {})
        return bool(members) and merge(self.members, decoded(members), replaced)

    def reopen(self) -> None:
        """Take note of more of the answer after a finish reason, which was not the last then."""
        self.ended = False
        self.reopened = True

    def end(self, word: str, native: str | None) -> None:
        """Take note of a finish reason. The first one counts, unless more came after it.

        Raises UpstreamError if the provider says that it failed.
        """
        reason = checked_reason(word, native or "")
        self.ended = True
        if not self.native_finish_reason or self.reopened:
            self.finish_reason = reason
            self.native_finish_reason = native or word

    def reasoning_state(self, pack: StatePacker | None) -> str:
        """Reasoning details as the reasoning state. Empty: the answer has none."""
        details = self.reasoning.details
        return pack(details) if pack is not None and details else ""

    def extra_json(self) -> bytes:
        """Members of the message that have no field, as a JSON object. Empty: there are none."""
        return msgspec.json.encode(self.extra) if self.extra else b""

    def members_json(self) -> bytes:
        """Members of the choice that have no field, as a JSON object. Empty: there are none."""
        return msgspec.json.encode(self.members) if self.members else b""


def older_message(choice: wire.Choice) -> wire.Message | None:
    """Return the message of a choice that has only the older API's `text`."""
    if choice.text is msgspec.UNSET:
        return None
    try:
        return wire.Message(content=msgspec.json.decode(choice.text, type=str | None))
    except msgspec.ValidationError:
        return None
    except NOT_JSON:  # As of half a surrogate pair.
        raise unreadable() from None


def pieces(content: list[wire.ContentPart | str]) -> Iterator[tuple[PlainDelta, str]]:
    """Pieces of text in a content array, in its order. None of them is empty."""
    for item in content:
        part = wire.ContentPart(text=item) if isinstance(item, str) else item
        reasons = part.type in _REASONING
        if reasoning := _flat(part.thinking) or (reasons and part.text):
            yield ReasoningDelta, reasoning
        if part.text and not reasons:
            yield TextDelta, part.text
        if part.refusal:
            yield RefusalDelta, part.refusal


def _flat(thinking: str | list[wire.Thought | str] | None) -> str:
    if thinking is None or isinstance(thinking, str):
        return thinking or ""
    return "".join(part if isinstance(part, str) else part.text or "" for part in thinking)
