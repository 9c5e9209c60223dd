"""Unknown members: JSON that callers set below the top level of a request, and no field has.

Structs keep them in `extra_json`. An encoder sends each member, or says that it does not: nothing
of a request is lost without a note. Null says nothing, nor do empty members that SDKs send back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from services.domain.conversation import Message
from services.domain.spec import ChatCompletionSpec
from services.errors import invalid
from services.providers.base import Notes
from services.providers.translate.raw_json import raw_object

NOTES_MAX = 32
"""The most notes about members that are not sent. One more then says that there are others."""

NAME_CHARS_MAX = 64

_SENT_BACK = frozenset(
    {"additional_kwargs", "annotations", "audio", "citations", "function_call", "images"}
    | {"provider_specific_fields", "videos"}
)
"""Members of answers that SDKs and frameworks send back where they are empty."""

_OBJECTS = frozenset(
    {"allowed_tools", "custom", "file", "function", "image_url", "input_audio", "json_schema"}
)
"""Objects within others whose unknown members are theirs, while they are sent themselves."""

Place = Literal[
    "thinking", "tool", "tool_choice", "response_format", "message", "part", "tool_call"
]
"""Kind of the object that has the members."""

Step = str | int
"""Field, or index in a list, on the way from the spec to an object."""


class UnknownMembers(NamedTuple):
    """Unknown members of one object."""

    place: Place
    steps: tuple[Step, ...]
    """Way to the object, such as `("messages", 0, "content", 1)`."""
    members: Mapping[str, msgspec.Raw]
    """Members in the caller's form, without those that are null. Those of an object within, such
    as `image_url`, are members of that object."""

    @property
    def path(self) -> str:
        """The way in words, such as `messages[0].content[1]`."""
        words = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.steps)
        return "".join(words)[1:]


def unknown_members(spec: ChatCompletionSpec) -> Sequence[UnknownMembers]:
    """Return the unknown members of all objects below the top level.

    Raises INVALID_FIELD unless each `extra_json` is a JSON object.
    """
    return [
        UnknownMembers(extra.place, extra.steps, members)
        for extra in _extras(spec)
        if (members := extra.members())
    ]


def unknown_paths(spec: ChatCompletionSpec, known: Collection[str] = ()) -> list[str]:
    """Return the paths of all unknown members that say something, but for names in `known`."""
    return [
        path
        for found in unknown_members(spec)
        for name, raw in found.members.items()
        if name not in known and says_something(name, raw)
        for path in member_paths(found.path, name, raw)
    ]


def member_paths(path: str, name: str, raw: msgspec.Raw) -> list[str]:
    """Return the paths of a member, or of those in it if it is an object that the contract has."""
    own = member_path(path, name)
    within = members_of(raw) if name in _OBJECTS else None
    return [member_path(own, each) for each in within] if within else [own]


def drop_members(paths: Iterable[str], notes: Notes) -> None:
    """Note that these members are not sent. Raises UNSUPPORTED_FEATURE in strict mode."""
    for count, path in enumerate(paths):
        if count == NOTES_MAX:
            notes.dropped("extra_json", "More members of the request are not passed on.")
            return
        notes.dropped(path, f"`{path}` is not passed on to the provider.")


def member_path(path: str, name: str) -> str:
    """Path of a member for a note. `extra_json` if its name is long or not an identifier."""
    readable = name.isidentifier() and name.isascii() and len(name) <= NAME_CHARS_MAX
    return f"{path}.{name if readable else 'extra_json'}"


def says_something(name: str, raw: msgspec.Raw) -> bool:
    """Whether a member is other than null, and than an empty one of an answer that comes back."""
    value = bytes(raw)
    is_empty = value[:1] in b"[{" and not value[1:-1].strip()
    return not (value == b"null" or (is_empty and name in _SENT_BACK))


def members_of(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    """Members of a JSON object, without those that are null. None: it is not one, in UTF-8."""
    try:
        bytes(data).decode()  # Raw values are not checked by the JSON decoder.
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (ValueError, RecursionError):
        return None
    return {name: raw for name, raw in members.items() if bytes(raw) != b"null"}


class _Extra(NamedTuple):
    """Members of one object as the spec has them."""

    place: Place
    steps: tuple[Step, ...]
    extra_json: bytes
    extra_content_json: bytes = b""
    """The member `extra_content`, which has a field and is sent under the same rule."""

    def members(self) -> Mapping[str, msgspec.Raw]:
        """Return the members that are not null. Raises INVALID_FIELD."""
        param = str(self.steps[0])
        members = members_of(self.extra_json) if self.extra_json else {}
        if members is None:
            raise invalid(param, f"Additional members in `{param}` are not a JSON object.")
        if self.extra_content_json:
            if "extra_content" in members:
                raise invalid(param, "A tool call has `extra_content` twice.")
            members["extra_content"] = raw_object(self.extra_content_json, "extra_content")
        return members


def _extras(spec: ChatCompletionSpec) -> Iterator[_Extra]:
    """Yield each object that has unknown members."""
    if spec.thinking is not None and spec.thinking.extra_json:
        yield _Extra("thinking", ("thinking",), spec.thinking.extra_json)
    for index, tool in enumerate(spec.tools):
        if tool.extra_json:
            yield _Extra("tool", ("tools", index), tool.extra_json)
    if spec.tool_choice is not None and spec.tool_choice.extra_json:
        yield _Extra("tool_choice", ("tool_choice",), spec.tool_choice.extra_json)
    if spec.response_format is not None and spec.response_format.extra_json:
        yield _Extra("response_format", ("response_format",), spec.response_format.extra_json)
    yield from _extras_of_messages(spec.messages)


def _extras_of_messages(messages: Sequence[Message]) -> Iterator[_Extra]:
    for index, message in enumerate(messages):
        if message.extra_json:
            yield _Extra("message", ("messages", index), message.extra_json)
        for number, part in enumerate(message.content):
            if part.extra_json:
                yield _Extra("part", ("messages", index, "content", number), part.extra_json)
        for number, call in enumerate(message.tool_calls):
            if call.extra_json or call.extra_content_json:
                steps = ("messages", index, "tool_calls", number)
                yield _Extra("tool_call", steps, call.extra_json, call.extra_content_json)
