"""State that the items of one answer share."""

from __future__ import annotations

from dataclasses import dataclass, field

FORMAT = "openai-responses-v1"
"""Format of reasoning in OpenRouter's form."""

BETWEEN = "\n\n"
"""Text between two summaries of reasoning."""


@dataclass(slots=True, kw_only=True)
class AnswerState:
    """State of one answer."""

    details: bool
    """Whether the answer is to have the reasoning in OpenRouter's form, too."""
    response_id: str = ""
    """The provider's ID of the answer."""
    has_reasoned: bool = False
    """Whether any text of reasoning has come."""
    call_ids: list[str] = field(default_factory=list)
    """IDs of the tool calls, in their order. Empty for one that has not begun."""
    taken_ids: set[str] = field(default_factory=set)
    """`call_ids` as a set, for a search in constant time."""
