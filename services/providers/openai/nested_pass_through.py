"""Pass-through of unknown members of messages, parts, tools and other objects within a request.

The rule is that of top-level fields (`services.providers.openai.pass_through`), with a table of
harmless members of its own. A member never replaces one that the encoder made, and none has the
name of a field of the contract's object. Members of an object that is not sent are not sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from services.domain.conversation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from services.domain.spec import ChatCompletionSpec, ResponseFormat, Thinking, Tool, ToolChoice
from services.providers.base import Notes, Target
from services.providers.openai.harmless_fields import Kind, folded, harmless_part, member_kinds
from services.providers.openai.messages import plain_content
from services.providers.openai.pass_through import NEVER, passes_any, passes_harmless
from services.providers.translate.unknown_members import (
    Place,
    Step,
    UnknownMembers,
    drop_members,
    member_path,
    members_of,
    says_something,
    unknown_members,
)

Json = dict[str, object]

_NEVER = frozenset(folded(name) for name in NEVER)


def _own(*structs: type[msgspec.Struct]) -> frozenset[str]:
    fields = (name for struct in structs for name in struct.__struct_fields__)
    return _NEVER.union(map(folded, fields))


_OWN: Mapping[Place, frozenset[str]] = {
    "thinking": _own(Thinking),
    "tool": _own(Tool),
    "tool_choice": _own(ToolChoice),
    "response_format": _own(ResponseFormat),
    "message": _own(Message),
    "part": _own(TextPart, ReasoningPart, ImagePart, AudioPart, FilePart),
    "tool_call": _own(ToolCall),
}
"""Names that are no unknown members: the contract's fields, and those that are never passed."""

_WANTED_BACK = frozenset({"extra_content"})
"""Members that a provider demands back. What is harmless of them is sent whatever a channel's
`pass_through` says; `quirks.drops` leaves them out."""

_ANSWERED: Mapping[str, frozenset[str]] = {
    "audio": frozenset({"id", "data", "expires_at", "transcript", "format"}),
    "function_call": frozenset({"name", "arguments"}),
}
"""Members of an earlier answer's message that `messages` sends, by reference where that is enough,
and what they consist of."""


def add_nested_members(spec: ChatCompletionSpec, body: Json, target: Target, notes: Notes) -> None:
    """Add unknown members to the objects of `body`. Each that is left out gets a note."""
    unknown = unknown_members(spec)
    if not unknown:
        return
    merger = _Merger(target)
    for found in unknown:
        _add(found, spec, body, target, merger)
    drop_members(merger.held, notes)


class _Merger:
    """Adder of members to the objects of a request, as the channel passes them on."""

    def __init__(self, target: Target) -> None:
        self._allowed = target.channel.pass_through
        self._drops = target.channel.quirks.drops
        self.held: list[str] = []
        """Paths of members that are not sent."""

    def hold(self, path: str, members: Mapping[str, msgspec.Raw]) -> None:
        """Send none of these members."""
        self.held += [
            member_path(path, name) for name, raw in members.items() if says_something(name, raw)
        ]

    def merge(
        self,
        made: Json,
        members: Mapping[str, msgspec.Raw],
        kinds: Mapping[str, Kind],
        path: str,
        own: frozenset[str] = _NEVER,
    ) -> None:
        """Add those of `members` to `made` that are passed on. `own`: names that never are."""
        taken = {folded(name) for name in made}
        for name, raw in members.items():
            plain_name = folded(name)
            kind, within = kinds.get(plain_name), made.get(name)
            inner = members_of(raw) if isinstance(within, dict) else None
            if inner is not None and isinstance(within, dict):
                kinds_within = kind if isinstance(kind, Mapping) else {}
                self.merge(within, inner, kinds_within, f"{path}.{name}")
            elif plain_name in taken or plain_name in own or name in self._drops:
                self.hold(path, {name: raw})
            elif passes_any(self._allowed, name):
                made[name] = raw
            elif not passes_harmless(self._allowed) and name not in _WANTED_BACK:
                self.hold(path, {name: raw})
            elif (value := self._harmless(name, raw, kind, path)) is not None:
                made[name] = value

    def _harmless(self, name: str, raw: msgspec.Raw, kind: Kind | None, path: str) -> object:
        """Return what may be passed on of a member. None: nothing."""
        if kind is None:
            self.hold(path, {name: raw})
            return None
        held: list[str] = []
        try:
            value = harmless_part(kind, name, msgspec.json.decode(raw), held)
        except (ValueError, RecursionError):  # Too deep for anything that is harmless.
            value, held = None, [name]
        for each in held:
            self.held.append(_joined(path, each))
        # Numbers stay as they are written. Objects are sent as they were understood here.
        return value if value is None or isinstance(value, dict | list) else raw


def _joined(path: str, names: str) -> str:
    """Path of a member of a member, such as `extra_content.google.x`."""
    for name in names.split("."):
        path = member_path(path, name)
    return path


def _add(
    found: UnknownMembers, spec: ChatCompletionSpec, body: Json, target: Target, merger: _Merger
) -> None:
    """Add the members of one object to the object that is sent for it."""
    place, path, members = found.place, found.path, found.members
    if place == "message":
        members = _without_answered(members, path, merger)
    made = _sent_object(found, spec, body, target)
    if made is None and place == "thinking" and "type" in members:
        body |= _own_thinking(found, target, merger)
    elif made is None:
        merger.hold(path, members)
    else:
        merger.merge(made, members, member_kinds(place), path, _OWN[place])
    if place == "part":
        _shorten(body, found.steps)


def _sent_object(
    found: UnknownMembers, spec: ChatCompletionSpec, body: Json, target: Target
) -> Json | None:
    """Object of the body that is sent for an object of the spec. None: none is."""
    match found.steps:
        case ("messages", int(index), "content", int(number)):
            return _sent_part(spec.messages[index].content, number, _at(body, "messages", index))
        case ("thinking",):
            name = target.channel.quirks.renames.get("thinking", "thinking")
            name = name if name in body else "reasoning"
            made = _at(body, name)
            if isinstance(made, dict):
                body[name] = made = dict(made)  # It may be a constant.
        case steps:
            made = _at(body, *steps)
    return made if isinstance(made, dict) else None


def _own_thinking(found: UnknownMembers, target: Target, merger: _Merger) -> Json:
    """Object `thinking` in the provider's words. Empty: the model or the channel takes none."""
    if target.capabilities.thinking == "none" or "thinking" in target.channel.quirks.drops:
        merger.hold(found.path, found.members)
        return {}
    made: Json = {}
    merger.merge(made, found.members, member_kinds("thinking"), found.path, _OWN["thinking"])
    name = target.channel.quirks.renames.get("thinking", "thinking")
    return {name: made} if "type" in made else {}


def _sent_part(parts: Sequence[ContentPart], number: int, message: object) -> Json | None:
    """Object that is sent for a part. Content that is a string is made a list of its part."""
    if isinstance(parts[number], ReasoningPart) or not isinstance(message, dict):
        return None
    if isinstance(message["content"], str):
        message["content"] = [{"type": "text", "text": message["content"]}]
    before = sum(isinstance(part, ReasoningPart) for part in parts[:number])
    made = _at(message, "content", number - before)
    return made if isinstance(made, dict) else None


def _shorten(body: Json, steps: Sequence[Step]) -> None:
    """Send content as a string again if no member was added to its only part."""
    message = _at(body, *steps[:2])
    if isinstance(message, dict) and isinstance(message["content"], list):
        message["content"] = plain_content(message["content"])


def _at(body: object, *steps: Step) -> object:
    """Return the value at a path in JSON, or None if the path does not exist."""
    for step in steps:
        if isinstance(body, dict):
            body = body.get(step)
        elif isinstance(body, list) and isinstance(step, int) and step < len(body):
            body = body[step]
        else:
            return None
    return body


def _without_answered(
    members: Mapping[str, msgspec.Raw], path: str, merger: _Merger
) -> Mapping[str, msgspec.Raw]:
    """Members but for those that `messages` has sent. Unknown ones in these are held."""
    for name, known in _ANSWERED.items():
        within = members_of(members[name]) if name in members else None
        if within is not None:
            rest = {key: raw for key, raw in within.items() if key not in known}
            merger.hold(f"{path}.{name}", rest)
    return {name: raw for name, raw in members.items() if name not in _ANSWERED}
