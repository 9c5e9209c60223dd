"""Reasoning of earlier turns: whether it is sent back, and what follows where it is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.domain.conversation import Message, ReasoningPart
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, Target

RENAME = "reasoning"
"""Name in `quirks.renames` for the reasoning of earlier turns. With an entry, it is sent in any
case."""

MISSING = "Reasoning cannot go on here: the turn that called the tool came back without it."


def plain_text(message: Message) -> str | None:
    """Return the reasoning of a message, as plain text. None: it has none, not even empty."""
    texts = [part.text for part in message.content if isinstance(part, ReasoningPart)]
    return "".join(texts) if texts else None


def takes_text(target: Target) -> bool:
    """Return whether reasoning of earlier turns is sent as plain text."""
    replay = target.capabilities.reasoning_replay
    return replay in ("text", "required") or RENAME in target.channel.quirks.renames


def note_unsent(messages: Sequence[Message], notes: Notes) -> None:
    """Note that plain reasoning is not sent.

    Where a message has its reasoning in another form, too, that form is what counts. Strict
    requests are not refused: many clients send answers back as they came, and such a provider asks
    them to leave reasoning out.
    """
    if any(message.role == "assistant" and _is_plain(message) for message in messages):
        notes.mapped(
            "reasoning_content", "Reasoning of earlier turns is left out for this provider."
        )


def needs_filler(spec: ChatCompletionSpec, target: Target) -> bool:
    """Return whether missing reasoning is sent as an empty text, where the model reasons.

    It is where the provider demands the field. Many demand it of all turns of
    the assistant as soon as one has called a tool; models that always reason, in any case.
    """
    capabilities = target.capabilities
    if capabilities.reasoning_replay != "required":
        return False
    has_calls = any(message.tool_calls for message in spec.messages)
    return has_calls or capabilities.thinking_default == "always"


def refusal(spec: ChatCompletionSpec, target: Target, carries: Callable[[int], bool]) -> str:
    """Return why the provider would refuse to reason in this conversation. Empty: it would not.

    `carries`: whether the message at an index is sent with its reasoning.
    """
    replay = target.capabilities.reasoning_replay
    if replay == "required":
        callers = [index for index, message in enumerate(spec.messages) if message.tool_calls]
    elif replay == "signed" and _reasons_by_budget(spec, target):
        callers = _last_callers(spec.messages)
    else:
        return ""
    return "" if all(carries(index) for index in callers) else MISSING


def _is_plain(message: Message) -> bool:
    """Whether a message has its reasoning as plain text only."""
    sealed = message.reasoning_state or message.reasoning_details_json
    return not sealed and bool(plain_text(message))


def _reasons_by_budget(spec: ChatCompletionSpec, target: Target) -> bool:
    capabilities = target.capabilities
    budget = spec.thinking.budget_tokens if spec.thinking else None
    return capabilities.thinking == "budget" or (capabilities.takes_budgets and budget is not None)


def _last_callers(messages: Sequence[Message]) -> list[int]:
    """Return the index at which the assistant's turn begins whose calls are answered last.

    Empty if the conversation does not end with results of tools.
    """
    last = len(messages)
    while last and messages[last - 1].role != "assistant":
        last -= 1
    if not last or not any(message.role == "tool" for message in messages[last:]):
        return []
    first = last - 1
    while first and messages[first - 1].role == "assistant":
        first -= 1
    return [first]
