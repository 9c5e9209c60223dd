"""Results of tool calls, for providers that demand exactly one for each call of a turn.

Conversations that were cut, edited or stopped within a tool loop have calls without a result and
results without a call. Such a call gets a result that says so, and such a result becomes a text of
the user. A result after other messages moves to the calls of its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from services.capabilities import ToolResults
from services.domain.conversation import ContentPart, Message, TextPart, ToolCall
from services.providers.base import Notes
from services.providers.translate.history.merging import joined_parts, merged

NO_RESULT = "(This call has no result.)"
"""Result of a call that has none."""

NOTES_MAX = 32
"""The most calls and results that get a note each."""

Numbered = list[tuple[int, Message]]
"""Messages with their index in the request."""


def paired(messages: list[Message], rule: ToolResults, notes: Notes) -> list[Message]:
    """Return the messages with one result for each call, and no others.

    Raises UNSUPPORTED_FEATURE in strict mode for a call or a result without the other.
    """
    if rule == "any" or _are_paired(messages):
        return messages
    turns = _Turns(rule, notes)
    return [sent for run, rest in _turns_of(messages) for sent in turns.paired(run, rest)]


def _are_paired(messages: Sequence[Message]) -> bool:
    """Whether all results follow their calls at once: the usual case."""
    waiting: list[str] = []
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                return False
            waiting.remove(message.tool_call_id)
        elif waiting:
            return False
        elif message.role == "assistant" and message.tool_calls:
            waiting = [call.id for call in message.tool_calls]
    return not waiting


def _turns_of(messages: Sequence[Message]) -> Iterator[tuple[Numbered, Numbered]]:
    """Yield the messages of each turn of the assistant, and those up to the next one."""
    run: Numbered = []
    rest: Numbered = []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            rest.append((index, message))
            continue
        if rest:
            yield run, rest
            run, rest = [], []
        run.append((index, message))
    yield run, rest


class _Turns:
    """Turns of one conversation, in its order."""

    def __init__(self, rule: ToolResults, notes: Notes) -> None:
        self._rule = rule
        self._notes = notes
        self._noted = 0

    def paired(self, run: Numbered, rest: Numbered) -> list[Message]:
        """Return the messages of a turn, the results of its calls, and the other messages."""
        waiting = _OpenCalls(run)
        results: list[Message] = []
        others: list[Message] = []
        for index, message in rest:
            if message.role != "tool":
                others.append(message)
                continue
            if not waiting.answer(message.tool_call_id):
                detail = "The result of a tool is sent as text: its turn has no such open call."
                self._note(f"messages[{index}].tool_call_id", detail)
                others.append(_as_text(message))
                continue
            if others:
                self._notes.mapped("messages", "Results of tools are sent right after their calls.")
            results.append(message)
        for index, number, call in waiting.rest():
            path = f"messages[{index}].tool_calls[{number}]"
            self._note(path, "A tool call without a result is sent with one that says so.")
            results.append(_answer(call.id))
        return [*self._turn([message for _, message in run]), *results, *others]

    def _turn(self, run: list[Message]) -> list[Message]:
        """Return the assistant's messages so that no other one follows their calls."""
        first = next((index for index, message in enumerate(run) if message.tool_calls), len(run))
        if self._rule == "turn" or first >= len(run) - 1:
            return run
        return [*run[:first], merged(run[first:], self._notes)]

    def _note(self, param: str, detail: str) -> None:
        self._noted += 1
        self._notes.changed(param if self._noted <= NOTES_MAX else "messages", detail)


class _OpenCalls:
    """Calls of one turn that have no result yet."""

    def __init__(self, run: Numbered) -> None:
        self._calls: list[tuple[int, int, ToolCall] | None] = [
            (index, number, call)
            for index, message in run
            for number, call in enumerate(message.tool_calls)
        ]
        self._places: dict[str, deque[int]] = {}
        for place, call in enumerate(self._calls):
            if call is not None:
                self._places.setdefault(call[2].id, deque()).append(place)

    def answer(self, call_id: str) -> bool:
        """Take the first open call with this ID. Returns whether there is one."""
        places = self._places.get(call_id)
        if not places:
            return False
        self._calls[places.popleft()] = None
        return True

    def rest(self) -> list[tuple[int, int, ToolCall]]:
        """Return each open call in order, after the indexes of its message and in that message."""
        return [call for call in self._calls if call is not None]


def _answer(call_id: str) -> Message:
    return Message(role="tool", tool_call_id=call_id, content=[TextPart(text=NO_RESULT)])


def _as_text(result: Message) -> Message:
    """Return the result of a tool in the user's name, marked as such."""
    of_tool = f" `{result.name}`" if result.name else ""
    said: list[ContentPart] = [TextPart(text=f"(Result of an earlier call of the tool{of_tool}.)")]
    content = joined_parts(said, result.content)
    return msgspec.structs.replace(result, role="user", name="", tool_call_id="", content=content)
