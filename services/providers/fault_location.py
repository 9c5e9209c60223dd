"""Location of a fault: the path of the message, part, tool call or tool that cannot be sent.

Encoders name the list that has it. The object is searched for only when a call is refused: halves
of the list are encoded until one object is left, which takes as long as one request does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.base import Dialect, Notes, Target

LISTS = frozenset({"messages", "tools"})
"""Lists of a spec. A failure names one of them where an object in it is at fault."""

MEMBERS: Mapping[str, str] = {
    "cache_control": "cache_control",
    "extra_content": "extra_content",
    "parameters": "function.parameters",
    "reasoning_details": "reasoning_details",
    "reasoning_state": "reasoning_state",
}
"""Paths of members below their object, by the name that a failure has for them."""

_USER = Message(role="user", content=[TextPart(text="Go on.")])

Fails = Callable[[Sequence[Any]], bool]
"""Whether objects of a list cannot be sent, for the reason that is searched for."""


def locate(
    failure: Failure, spec: ChatCompletionSpec, dialect: Dialect, target: Target, *, strict: bool
) -> None:
    """Set `param` of a failure to encode `spec` to the path of what is at fault, if it is found."""
    name = failure.param
    if name not in LISTS and name not in MEMBERS:
        return
    search = _Search(failure, dialect, target, strict=strict)
    path = "" if name == "tools" else search.in_messages(spec)
    path = path or ("" if name == "messages" else search.in_tools(spec))
    if path:
        failure.param = path if name in LISTS else f"{path}.{MEMBERS[name]}"


class _Search:
    """Search for the object that a dialect refuses."""

    def __init__(self, failure: Failure, dialect: Dialect, target: Target, *, strict: bool) -> None:
        self._failure = failure
        self._dialect = dialect
        self._target = target
        # Unreadable objects are refused in any mode, and strict mode refuses half a conversation.
        self._strict = strict and failure.reason == ErrorReason.UNSUPPORTED_FEATURE

    def in_messages(self, spec: ChatCompletionSpec) -> str:
        """Return the path of a message, or of its part or tool call. Empty: not in the messages."""
        index = _found(spec.messages, self._fails)
        if index is None:
            return ""
        message = spec.messages[index]
        lists: Mapping[str, Sequence[Any]] = {
            "content": message.content,
            "tool_calls": message.tool_calls,
        }
        bare = msgspec.structs.replace(message, **{name: [] for name in lists})
        if not self._fails([msgspec.structs.replace(bare, content=_USER.content)]):
            for name, items in lists.items():
                number = _found(items, self._fails_with(bare, name))
                if number is not None:
                    return f"messages[{index}].{name}[{number}]"
        return f"messages[{index}]"

    def in_tools(self, spec: ChatCompletionSpec) -> str:
        """Return the path of a tool. Empty: none of them is at fault by itself."""
        index = _found(spec.tools, lambda tools: self._fails([], tools))
        return "" if index is None else f"tools[{index}]"

    def _fails_with(self, message: Message, name: str) -> Fails:
        return lambda items: self._fails([msgspec.structs.replace(message, **{name: [*items]})])

    def _fails(self, messages: Sequence[Any], tools: Sequence[Any] = ()) -> bool:
        spec = ChatCompletionSpec(model="m", messages=[*messages, _USER], tools=[*tools])
        try:
            self._dialect.encode(spec, self._target, Notes(strict=self._strict))
        except Failure as other:
            return _identity(other) == _identity(self._failure)
        return False


def _identity(failure: Failure) -> tuple[object, ...]:
    return failure.reason, failure.param, failure.message


def _found(items: Sequence[Any], fails: Fails) -> int | None:
    """Return the index of the first item that fails by itself, as far as halves show it."""
    if not items or fails(()):
        return None
    first, last = 0, len(items)
    while last - first > 1:
        middle = (first + last) // 2
        if fails(items[first:middle]):
            last = middle
        else:
            first = middle
    return first if fails(items[first:last]) else None
