"""Fields of the API that are unknown to the contract, and members of objects that it has.

Other unknown fields follow the rule of chat completions: see
`services.providers.openai.pass_through`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from services.domain.conversation import Message
from services.domain.spec import ChatCompletionSpec
from services.errors import invalid
from services.providers.base import OTHER_PARTS, Notes, Target
from services.providers.openai.harmless_fields import harmless_part
from services.providers.openai.pass_through import extra_fields, passes_any, passes_harmless
from services.providers.openai_responses.wire import Json
from services.providers.translate.unknown_members import (
    UnknownMembers,
    drop_members,
    member_paths,
    members_of,
    says_something,
    unknown_members,
)

INCLUDE = "include"
PHASE = "phase"

_OWN: Mapping[str, str] = {INCLUDE: "plain", "truncation": "plain", "max_tool_calls": "plain"}
"""Kinds of values of the API's own fields, as in `harmless_fields.toml`."""

_OF_REASONING = ("context",)
_OF_ANSWERS = frozenset({"annotations", OTHER_PARTS})
_NONE: Collection[str] = ()


def own_fields(spec: ChatCompletionSpec, body: Json, target: Target, notes: Notes) -> Json:
    """Return the unknown fields to add to `body`. Each that is left out gets a note.

    Raises INVALID_FIELD unless they are a JSON object.
    """
    found = members_of(spec.extra_json)
    if found is None:
        raise invalid("extra_json", "The additional fields are not a JSON object.")
    allowed, drops = target.channel.pass_through, target.channel.quirks.drops
    sent: Json = {}
    for name, kind in _OWN.items():
        raw = found.get(name)
        passes = passes_harmless(allowed) or passes_any(allowed, name)
        if raw is None or not passes or name in drops:
            continue
        value = harmless_part(kind, name, msgspec.json.decode(raw), [])
        if value is not None:
            sent[name] = value
            del found[name]
    rest = msgspec.structs.replace(spec, extra_json=msgspec.json.encode(found))
    if found:
        sent |= extra_fields(rest, body | sent, target, notes)
    return sent


def reasoning_members(spec: ChatCompletionSpec) -> Json:
    """Return members of the reasoning settings that only this API has."""
    if spec.thinking is None or not spec.thinking.extra_json:
        return {}
    found = members_of(spec.thinking.extra_json) or {}
    return {name: found[name] for name in _OF_REASONING if name in found}


def phase_of(message: Message) -> str:
    """Return the phase of an earlier answer: a commentary, or the answer itself. Empty: none."""
    if not message.extra_json or message.role != "assistant" or not message.content:
        return ""
    raw = (members_of(message.extra_json) or {}).get(PHASE)
    return str(msgspec.json.decode(raw)) if raw is not None and bytes(raw)[:1] == b'"' else ""


def note_unsent(spec: ChatCompletionSpec, notes: Notes) -> None:
    """Note all unknown members that say something, but for those that are sent.

    Those that answers have, and clients send back, cost a strict request nothing: the API wants
    back what the reasoning state has.
    """
    lost: list[str] = []
    for found in unknown_members(spec):
        sent, answered = _sent(found, spec), _of_answers(found, spec)
        for name, raw in found.members.items():
            if name in sent or not says_something(name, raw):
                continue
            if name in answered:
                detail = "What an earlier answer had beside its text and calls is left out."
                notes.mapped(f"{found.path}.{name}", detail)
            else:
                lost += member_paths(found.path, name, raw)
    if lost:
        drop_members(lost, notes)


def _of_answers(found: UnknownMembers, spec: ChatCompletionSpec) -> Collection[str]:
    """Return the names of members of one object that an earlier answer may have had."""
    match found.place, found.steps:
        case "message", (_, int(index)) if spec.messages[index].role == "assistant":
            return _OF_ANSWERS
    return _NONE


def _sent(found: UnknownMembers, spec: ChatCompletionSpec) -> Collection[str]:
    """Return the names of the members of one object that are sent."""
    match found.place, found.steps:
        case "thinking", _:
            return _OF_REASONING
        case "message", (_, int(index)) if phase_of(spec.messages[index]):
            return (PHASE,)
    return _NONE
