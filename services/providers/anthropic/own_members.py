"""Own members: those that the API has for an object, and the contract has not."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from services.domain.conversation import FilePart, TextPart
from services.domain.spec import ChatCompletionSpec
from services.providers.translate.unknown_members import (
    UnknownMembers,
    member_paths,
    members_of,
    says_something,
    unknown_members,
)

OF_TOOLS = ("defer_loading", "eager_input_streaming", "input_examples")
CITATIONS = "citations"
OF_DOCUMENTS = (CITATIONS, "context")

_LOCATIONS = frozenset(
    f"{place}_location"
    for place in ("char", "page", "content_block", "search_result", "web_search_result")
)
"""Types of citations."""

_NONE: Collection[str] = ()


class _Citation(msgspec.Struct):
    type: str


def own_members(extra_json: bytes, names: Collection[str]) -> dict[str, object]:
    """Return those of an object's unknown members that have one of these names."""
    if not extra_json:
        return {}
    found = members_of(extra_json) or {}
    return {name: raw for name, raw in found.items() if name in names}


def citations_of(extra_json: bytes) -> dict[str, object]:
    """Return the citations of an earlier answer's text, unless they have another API's form."""
    raw = (members_of(extra_json) or {}).get(CITATIONS) if extra_json else None
    if raw is None:
        return {}
    try:
        cited = msgspec.json.decode(raw, type=list[_Citation])
    except msgspec.ValidationError:
        return {}
    return {CITATIONS: raw} if all(each.type in _LOCATIONS for each in cited) else {}


def unsent_paths(spec: ChatCompletionSpec) -> list[str]:
    """Return the paths of all unknown members that say something, but for those that are sent."""
    return [
        path
        for found in unknown_members(spec)
        for name, raw in found.members.items()
        if name not in _sent(found, spec) and says_something(name, raw)
        for path in member_paths(found.path, name, raw)
    ]


def _sent(found: UnknownMembers, spec: ChatCompletionSpec) -> Collection[str]:
    """Return the names of the members of one object that are sent."""
    match found.place, found.steps:
        case "tool", (_, int(index)) if not spec.tools[index].other_json:
            return OF_TOOLS
        case "part", (_, int(index), _, int(number)):
            part = spec.messages[index].content[number]
            if isinstance(part, FilePart):
                return OF_DOCUMENTS
            if isinstance(part, TextPart) and part.text.strip():
                return citations_of(part.extra_json)
    return _NONE
