"""Assembly of tool calls from fragments, which providers split in different ways.

Calls arrive whole or in fragments. Their indexes start at 0, repeat, or are missing. IDs arrive
once, with every fragment, differ in every fragment, or never arrive. Names are split or repeated.
Arguments may begin with an empty object that the real ones replace, or never begin.
The result always has one form: calls numbered from 0, with an ID that no other call has, name and
type in the first piece only. This piece waits until the name is complete: until the arguments or
another call begin, or the answer ends.

A fragment belongs to the call at its index, as in OpenAI's protocol. Exceptions are fragments that
begin another call at the same index, as Gemini's do: see `ToolCalls.add`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from services.common.json_errors import NOT_JSON
from services.common.known_members import member
from services.domain.conversation import ToolCall, ToolType
from services.domain.events import ToolCallDelta
from services.providers.base import TextEvents
from services.providers.openai import wire
from services.providers.openai.extras import Json, decoded, grown, joined_name, merge
from services.providers.tool_call_ids import made_id, own_id


@dataclass(slots=True)
class _Call:
    """Tool call that has begun."""

    number: int
    provider_index: int | None
    type: ToolType
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    """Fragments received so far."""
    sent: int = 0
    """Number of fragments that have been returned."""
    extra_content_json: bytes = b""
    """Data that the provider wants back with the call."""
    extra_content_sent: bool = False
    """Whether it has been returned."""
    extra: Json = field(default_factory=dict)
    """Members that the contract has no fields for, as in `ToolCall.extra_json`."""
    started: bool = False
    """Whether the piece with ID and name has been returned."""

    def add_members(self, unknown: Any) -> None:
        """Add unknown members of the call, and of its function or custom tool."""
        merge(self.extra, decoded(unknown), grown)
        for name in ("function", "custom"):
            if inner := decoded(member(unknown, name)):
                merge(self.extra, {name: inner}, grown)

    @property
    def extra_json(self) -> bytes:
        """These members as a JSON object. Empty: there are none."""
        return msgspec.json.encode(self.extra) if self.extra else b""

    @property
    def has_placeholder(self) -> bool:
        """Whether the arguments are an empty object, which arguments may still replace."""
        return len(self.arguments) == 1 and not self.sent and self.arguments[0].strip() == "{}"

    def end(self) -> None:
        """Give a function without arguments an empty object: clients and servers read JSON."""
        if self.type == "function" and not any(self.arguments):
            self.arguments.append("{}")

    def complete(self) -> bool:
        """Whether nothing can be added to the arguments. Input of custom tools has no such end."""
        if self.type == "custom":
            return bool(self.arguments)
        last = self.arguments[-1].rstrip() if self.arguments else ""
        if not last or (self.arguments[0].lstrip().startswith("{") and last[-1] != "}"):
            return False
        return _value("".join(self.arguments)) is not None

    def repeats(self, arguments: str) -> bool:
        """Whether `arguments` are those of the call once more, as some servers end a call."""
        if not arguments.lstrip().startswith("{") or self.type == "custom":
            return False
        value = _value(arguments)
        return value is not None and self.complete() and value == _value("".join(self.arguments))


class ToolCalls(msgspec.Struct, eq=False):
    """Tool calls of one choice."""

    _seed: str
    """Makes the IDs where the provider sends none."""
    _index: int = 0
    """Index of the choice."""
    begun: list[_Call] = []
    """The calls so far."""
    _by_id: dict[str, _Call] = {}
    """The calls with an ID."""
    _by_index: dict[int, _Call] = {}
    """The last call at each of the provider's indexes."""
    _waiting: dict[int, _Call] = {}
    """The calls with a name that have not started, by number."""

    def add(self, piece: wire.ToolCall, unknown: Any = None) -> Iterator[ToolCallDelta]:
        """Add the fragment `piece` and its unknown members. Returns what it adds to the answer.

        A fragment with a name begins another call at the same index if its ID is new, or if the
        arguments so far are complete and it does not repeat them. It does not if the name is the
        same and the arguments are incomplete.
        """
        name, arguments = _name_and_arguments(piece)
        call = self._find(piece, name, arguments)
        if call is None:
            if not (name or arguments or piece.id):
                return
            for number in sorted(self._waiting):
                yield self._next(self._waiting[number])
            call = self._begin(piece)
        elif arguments and (name or call.started) and call.repeats(arguments):
            arguments = name = ""
        if unknown:
            call.add_members(unknown)
        self._identify(call, piece.id)
        if name and not call.started:
            call.name = joined_name(call.name, name)
            self._waiting[call.number] = call
        call.extra_content_json = call.extra_content_json or _extra_content(piece)
        if arguments:
            if call.has_placeholder and arguments.lstrip().startswith("{"):
                call.arguments.clear()
            call.arguments.append(arguments)
        late_content = call.started and call.extra_content_json and not call.extra_content_sent
        if (arguments and call.name and not call.has_placeholder) or late_content:
            yield self._next(call)

    def further(self, event: ToolCallDelta) -> TextEvents | None:
        """Return what makes the events of fragments like that of `event`, the last one.

        They have an index, and arguments alone. None: an event depends on more than the arguments.
        """
        call = self.begun[-1]
        last = call.arguments[-1] if call.arguments else ""
        is_alike = event == ToolCallDelta(index=self._index, call_index=call.number, arguments=last)
        return partial(self._append, call) if is_alike and call.provider_index is not None else None

    def _append(self, call: _Call, texts: Iterable[str]) -> Iterator[ToolCallDelta]:
        """Add texts to the arguments of a call that has started."""
        for arguments in texts:
            if not call.repeats(arguments):
                call.arguments.append(arguments)
                yield self._next(call)

    def rest(self) -> Iterator[ToolCallDelta]:
        """Yield the pieces that wait for the end of the answer: starts, and unknown members."""
        for call in self.begun:
            call.end()
        for call in self.begun:
            if not call.started:  # It has no arguments, or no name.
                yield self._next(call)
        for call in self.begun:
            if call.sent < len(call.arguments):
                yield self._next(call)
            if call.extra:
                yield ToolCallDelta(
                    index=self._index, call_index=call.number, extra_json=call.extra_json
                )

    def id_at(self, number: int) -> str:
        """The ID of the call with this number."""
        return self._final_id(self.begun[number])

    def add_whole(self, piece: wire.ToolCall, unknown: Any = None) -> None:
        """Add a whole call and its unknown members.

        It is a call of its own, whatever its index, ID and name are.
        """
        name, arguments = _name_and_arguments(piece)
        if name or arguments or piece.id:
            call = self._begin(piece)
            call.name = name
            call.arguments.append(arguments)
            call.extra_content_json = _extra_content(piece)
            call.add_members(unknown)
            call.end()

    def whole(self) -> list[ToolCall]:
        """All calls, whole."""
        return [
            ToolCall(
                id=self._final_id(call),
                name=call.name,
                arguments="".join(call.arguments),
                type=call.type,
                extra_json=call.extra_json,
                extra_content_json=call.extra_content_json,
            )
            for call in self.begun
        ]

    def _find(self, piece: wire.ToolCall, name: str, arguments: str) -> _Call | None:
        """Find the call that `piece` belongs to. None: it begins another."""
        same_id = self._by_id.get(piece.id) if piece.id else None
        call = same_id
        if call is None or not self._at(piece.index, call):
            call = self._last_at(piece.index)
        if call is None:
            return None if name else same_id
        return None if self._begins(piece, name, arguments, call) else call

    def _last_at(self, index: int | None) -> _Call | None:
        """The last call that a fragment with this index can belong to."""
        last = self.begun[-1] if self.begun else None
        if last is None or self._at(index, last):
            return last
        return None if index is None else self._by_index.get(index)

    def _at(self, index: int | None, call: _Call) -> bool:
        """Whether a fragment with this index can belong to `call`."""
        if index is None:
            return True
        if call.provider_index is None:
            return call is self.begun[-1] and not call.complete()
        return call.provider_index == index

    def _begins(self, piece: wire.ToolCall, name: str, arguments: str, call: _Call) -> bool:
        """Whether `piece`, at the index of `call`, begins another call."""
        if not name or not call.name:
            return False
        is_same = name == call.name
        if piece.id and call.id and piece.id != call.id:
            return not is_same or call.complete()
        if piece.index is None and not piece.id:
            return True  # Nothing but the name tells calls apart.
        if not arguments and is_same:
            return False
        return call.complete() and not (is_same and call.repeats(arguments))

    def _begin(self, piece: wire.ToolCall) -> _Call:
        custom = piece.custom is not None or piece.type == "custom"
        call = _Call(
            number=len(self.begun),
            provider_index=piece.index,
            type="custom" if custom else "function",
        )
        self._identify(call, piece.id)
        if piece.index is not None:
            self._by_index[piece.index] = call
        self.begun.append(call)
        return call

    def _identify(self, call: _Call, call_id: str | None) -> None:
        """Give a call without an ID the provider's, unless another call has that."""
        if not call.id and (own := own_id(call_id, self._by_id)):
            call.id = own
            self._by_id[own] = call

    def _next(self, call: _Call) -> ToolCallDelta:
        """Piece with what has not been returned of `call`."""
        arguments = "".join(call.arguments[call.sent :])
        call.sent = len(call.arguments)
        extra_content_json = b"" if call.extra_content_sent else call.extra_content_json
        call.extra_content_sent = bool(call.extra_content_json)
        if call.started:
            return ToolCallDelta(
                index=self._index,
                call_index=call.number,
                arguments=arguments,
                extra_content_json=extra_content_json,
            )
        call.started = True
        self._waiting.pop(call.number, None)
        return ToolCallDelta(
            index=self._index,
            call_index=call.number,
            id=self._final_id(call),
            name=call.name,
            arguments=arguments,
            type=call.type,
            extra_content_json=extra_content_json,
        )

    def _final_id(self, call: _Call) -> str:
        """The call's ID. One is made if the provider sent none."""
        if not call.id:
            call.id = made_id(self._seed, self._index, call.number)
            self._by_id[call.id] = call
        return call.id


def _value(arguments: str) -> object:
    """Value of the JSON text. None if it is not complete."""
    try:
        return msgspec.json.decode(arguments, type=object)
    except NOT_JSON:
        return None


def _name_and_arguments(piece: wire.ToolCall) -> tuple[str, str]:
    custom, function = piece.custom, piece.function
    if custom is not None:
        return custom.name or "", custom.input or ""
    if function is not None:
        return function.name or "", _text(function.arguments)
    return "", ""


def _extra_content(piece: wire.ToolCall) -> bytes:
    return msgspec.json.encode(piece.extra_content) if piece.extra_content else b""


def _text(arguments: str | dict[str, object] | list[object] | None) -> str:
    """Arguments as JSON text. Some servers send an object instead."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()
