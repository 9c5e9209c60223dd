"""Messages: OpenAI's conversation to the domain's.

Parts of earlier answers are accepted in every form in which clients of OpenAI, Anthropic and
OpenRouter send them back: `reasoning_content`, `reasoning`, thinking parts, `reasoning_state` and
`reasoning_details`; tool calls, and function calls from before there were tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

from gateway.errors import invalid
from gateway.surfaces.images import ImageReader
from gateway.surfaces.json_fields import json_of, one_of
from gateway.surfaces.openai_chat.parts import (
    PARTS_MAX,
    PartReader,
    Parts,
    has_thinking,
    read_refusals,
)
from gateway.surfaces.unknown_members import Reader, to_json
from services.common.known_members import item, member
from services.domain.conversation import (
    ContentPart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolType,
)

MESSAGES_MAX = 10_000
"""The most messages that are decoded; the service accepts 2,000."""

_NONE = Raw()
_NESTED = frozenset({"content", "tool_calls", "function_call"})


class _FunctionCall(Struct, forbid_unknown_fields=True):
    name: str
    arguments: str | None = None


class _EarlierCall(_FunctionCall, forbid_unknown_fields=True):
    """Call in the form that preceded tools, in which answers of this API have `extra_content`."""

    extra_content: Raw = _NONE


class _CustomCall(Struct, forbid_unknown_fields=True):
    name: str
    input: str | None = None


class _ToolCall(Struct, forbid_unknown_fields=True):
    id: str
    function: _FunctionCall | None = None
    custom: _CustomCall | None = None
    type: Raw = _NONE
    extra_content: Raw = _NONE
    cache_control: Raw = _NONE
    index: Raw = _NONE
    """Its place in the list, which clients leave there that put calls together from a stream."""


class _Message(Struct, forbid_unknown_fields=True):
    role: str
    content: str | Annotated[Parts, Meta(max_length=PARTS_MAX)] | None = None
    name: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: _EarlierCall | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_state: str | None = None
    reasoning_details: Raw = _NONE
    cache_control: Raw = _NONE


_MESSAGES: Reader[list[_Message]] = Reader(Annotated[list[_Message], Meta(max_length=MESSAGES_MAX)])

MESSAGE_ROLES: Sequence[Literal["system", "developer", "user", "assistant", "tool", "function"]] = (
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
)
"""With `function`, the name that OpenAI gave to tools before it had that role."""


def decode_messages(raw: Raw, images: ImageReader) -> list[Message]:
    """Decode the JSON of the field `messages`.

    Raises ApiError: a message has another shape. The error's `param` is its path.
    """
    messages, unknown = _MESSAGES.read("messages", raw)
    reader = _ConversationReader(images)
    return [
        reader.message(f"messages[{index}]", each, item(unknown, index))
        for index, each in enumerate(messages)
    ]


class _ConversationReader:
    """Reader of one conversation's messages, in order. `unknown` are unknown members."""

    def __init__(self, images: ImageReader) -> None:
        self._parts = PartReader(images)
        self._function_calls: dict[str, str] = {}
        """ID of the latest call of each function."""
        self._function_calls_count = 0

    def message(self, at: str, message: _Message, unknown: Any) -> Message:
        role = one_of(f"{at}.role", message.role, MESSAGE_ROLES)
        name, tool_call_id = message.name or "", message.tool_call_id or ""
        of_parts = member(unknown, "content")
        content = self._content(at, message, of_parts)
        refusal = read_refusals(message.content, of_parts)
        of_calls = member(unknown, "tool_calls")
        tool_calls = [
            _tool_call(f"{at}.tool_calls[{index}]", call, item(of_calls, index))
            for index, call in enumerate(message.tool_calls or ())
        ]
        if message.function_call is not None:
            call = self._function_call(message.function_call, member(unknown, "function_call"))
            tool_calls.insert(0, call)
        if role == "function":
            role, tool_call_id = "tool", self._function_calls.get(name, f"call_{name}")
        return Message(
            role=role,
            content=content,
            name=name,
            tool_calls=tool_calls,
            tool_call_id=tool_call_id,
            reasoning_state=message.reasoning_state or "",
            reasoning_details_json=json_of(message.reasoning_details),
            refusal=(message.refusal or "") + refusal.text,
            extra_json=to_json(_own_members(unknown, refusal.unknown)),
            cache_control_json=json_of(message.cache_control) or refusal.mark,
        )

    def _content(self, at: str, message: _Message, unknown: Any) -> list[ContentPart]:
        parts = message.content
        content: list[ContentPart] = []
        reasoning = message.reasoning_content or message.reasoning
        # A model may call a tool without a thought: some providers demand the empty text back.
        is_empty = message.reasoning_content == "" and bool(message.tool_calls)
        is_empty = is_empty and not json_of(message.reasoning_details)
        # A client that sends our answer back unchanged has the reasoning in both places.
        if (reasoning or is_empty) and not has_thinking(parts):
            content.append(ReasoningPart(text=reasoning or ""))
        if isinstance(parts, str):
            content.append(TextPart(text=parts))
        elif parts:
            content += self._parts.content(at, parts, unknown)
        return content

    def _function_call(self, call: _EarlierCall, unknown: Any) -> ToolCall:
        # Function calls had no IDs, which tools need: the answer names the function.
        call_id = f"call_{self._function_calls_count}_{call.name}"
        self._function_calls_count += 1
        self._function_calls[call.name] = call_id
        return ToolCall(
            id=call_id,
            name=call.name,
            arguments=call.arguments or "",
            extra_json=to_json({"function": unknown} if unknown else None),
            extra_content_json=json_of(call.extra_content),
        )


def _own_members(unknown: Any, of_refusals: Mapping[str, object]) -> Mapping[str, object]:
    """Return a message's unknown members: without those of what becomes a struct of its own."""
    if not unknown:
        return of_refusals
    own = {name: value for name, value in unknown.items() if name not in _NESTED}
    return {**of_refusals, **own}


def _tool_call(at: str, call: _ToolCall, unknown: Any) -> ToolCall:
    kind: ToolType
    if (custom := call.custom) is not None:
        name, arguments, kind = custom.name, custom.input, "custom"
        if call.function is not None:
            unknown = {**(unknown or {}), "function": call.function}
    elif (function := call.function) is not None:
        name, arguments, kind = function.name, function.arguments, "function"
    else:
        raise invalid(at, f"Invalid {at}: expected `function` or `custom`.")
    return ToolCall(
        id=call.id,
        name=name,
        arguments=arguments or "",
        type=kind,
        extra_json=to_json(unknown),
        extra_content_json=json_of(call.extra_content),
        cache_control_json=json_of(call.cache_control),
    )
