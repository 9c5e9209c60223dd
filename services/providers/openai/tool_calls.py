"""Assembly of tool calls from fragments, which providers split in different ways.

Calls arrive whole or in fragments. Their indexes start at 0, repeat, or are missing. IDs arrive
once, with every fragment, or never. The result always has one form: calls numbered from 0, with ID,
name and type in the first chunk only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2 as content

from services.providers.openai import wire


@dataclass(slots=True)
class _Call:
    """Tool call that has begun."""

    number: int
    provider_index: int | None
    id: str
    type: content.ToolType.ValueType
    name: str = ""
    held: str = ""
    """Arguments received before the name."""


class ToolCalls:
    """Tool calls of one choice. `seed` is the source of IDs where the provider sends none."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._calls: list[_Call] = []

    def add(self, piece: wire.ToolCall) -> pb.ToolCallDelta | None:
        """Add the fragment `piece`. Returns what it adds to the answer, if anything."""
        if piece.custom is not None:
            name, arguments = piece.custom.name, piece.custom.input
        else:
            function = piece.function or wire.Function()
            name, arguments = function.name, _text(function.arguments)
        call = self._call(piece, name or "")
        call.held += arguments or ""
        if call.name:
            return self._more(call)
        call.name = name or ""
        return self._first(call) if call.name else None

    def rest(self) -> Iterator[pb.ToolCallDelta]:
        """Start of each call whose name was never received."""
        for call in self._calls:
            if not call.name:
                yield self._first(call)

    def _call(self, piece: wire.ToolCall, name: str) -> _Call:
        """Find the call that `piece` belongs to, or begin one."""
        known = [call for call in self._calls if self._belongs(piece, name, call)]
        if known:
            return known[-1]
        number = len(self._calls)
        custom = piece.custom is not None or piece.type == "custom"
        call = _Call(
            number=number,
            provider_index=piece.index,
            id=piece.id or "",
            type=content.TOOL_TYPE_CUSTOM if custom else content.TOOL_TYPE_FUNCTION,
        )
        self._calls.append(call)
        return call

    def _belongs(self, piece: wire.ToolCall, name: str, call: _Call) -> bool:
        """Whether `piece` belongs to `call`. IDs decide before indexes: Gemini's are all 0."""
        if piece.id and call.id:
            return piece.id == call.id
        if piece.index is not None:
            return piece.index == call.provider_index
        is_last = call is self._calls[-1]
        return is_last and not (name and call.name)  # Two names are two calls.

    def _first(self, call: _Call) -> pb.ToolCallDelta:
        made = f"{self._seed}/{call.number}".encode()
        arguments, call.held = call.held, ""
        return pb.ToolCallDelta(
            index=call.number,
            id=call.id or f"call_{hashlib.blake2s(made, digest_size=12).hexdigest()}",
            name=call.name,
            arguments=arguments,
            type=call.type,
        )

    def _more(self, call: _Call) -> pb.ToolCallDelta | None:
        arguments, call.held = call.held, ""
        return pb.ToolCallDelta(index=call.number, arguments=arguments) if arguments else None


def _text(arguments: str | dict[str, object] | list[object] | None) -> str:
    """Arguments as JSON text. Some servers send an object instead."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()
