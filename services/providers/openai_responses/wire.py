"""Types of the API's JSON: events, items of an answer, and their parts.

Every field may be missing or null. A value of an unexpected type is read as well as it can be, so
that one such field does not fail the whole answer.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from services.common.json_errors import NOT_JSON
from services.providers.unusable_answers import unreadable

Json: TypeAlias = dict[str, object]


class Wire(msgspec.Struct, frozen=True, gc=False):
    """Base class of all types. Not tracked by the garbage collector: values form no cycles."""


class Part(Wire, frozen=True, gc=False):
    """Part of a message, of a summary or of open reasoning."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    annotations: list[object] | None = None
    logprobs: list[object] | None = None


class Item(Wire, frozen=True, gc=False):
    """Item of an answer, as far as it is read."""

    type: str | None = None
    id: str | None = None
    content: list[Part] | str | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | Json | list[object] | None = None
    input: str | None = None
    phase: str | None = None

    @property
    def parts(self) -> list[Part]:
        """The content as parts."""
        if isinstance(self.content, str):
            return [Part(type="output_text", text=self.content)]
        return self.content or []

    @property
    def given_arguments(self) -> str:
        """Arguments of a call as text. Some servers send an object instead."""
        if self.arguments is None or isinstance(self.arguments, str):
            return self.arguments or self.input or ""
        return msgspec.json.encode(self.arguments).decode()


class IncompleteDetails(Wire, frozen=True, gc=False):
    """Reason of an incomplete answer."""

    reason: str | None = None


class Response(Wire, frozen=True, gc=False):
    """The answer, as far as it is read."""

    id: str | None = None
    status: str | None = None
    output: list[Raw] | None = None
    incomplete_details: IncompleteDetails | None = None
    error: Raw | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET
    service_tier: str | None = None


class Event(Wire, frozen=True, gc=False):
    """Event of a stream, as far as it is read."""

    type: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: str | None = None
    delta: str | None = None
    logprobs: list[object] | None = None
    item: Raw | UnsetType = UNSET
    response: Raw | UnsetType = UNSET
    annotation: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


EVENT = msgspec.json.Decoder(Event)
RESPONSE = msgspec.json.Decoder(Response)
ITEM = msgspec.json.Decoder(Item)
OBJECT = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])
_NO_OBJECTS = Raw(b"[]")


def others(data: bytes | Raw, known: Collection[str]) -> Json:
    """Return the members of an object that are not `known`, nor null."""
    try:
        members = OBJECT.decode(data)
        return {
            name: msgspec.json.decode(raw)
            for name, raw in members.items()
            if name not in known and bytes(raw) != b"null"
        }
    except NOT_JSON:
        raise unreadable() from None


def decoded(data: Raw) -> object:
    """Return a value that was not read before. Raises UPSTREAM_BAD_RESPONSE if it cannot be."""
    try:
        return msgspec.json.decode(data)
    except NOT_JSON:
        raise unreadable() from None


def objects_in(data: Raw, name: str) -> list[Raw]:
    """Return the objects of a member that is a list of objects, or one object alone; unread."""
    try:
        found = OBJECT.decode(data).get(name, _NO_OBJECTS)
        items = _LIST.decode(found) if bytes(found)[:1] == b"[" else [found]
    except NOT_JSON:
        raise unreadable() from None
    return [each for each in items if bytes(each)[:1] == b"{"]


def present(value: Raw | UnsetType) -> Raw | None:
    """Return a value, or None where it is missing or null."""
    return None if value is UNSET or bytes(value) == b"null" else value
