"""Members of an answer: its ID, usage, citations, and why it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from gateway.surfaces.other_members import one_line, with_others
from services.domain.usage import Usage

Json = dict[str, object]

OTHER_PARTS = "content_parts"
"""Member of a message with blocks of types that the contract does not have."""

STOP_REASONS: Mapping[str, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""This API's words for the reasons of an end. Others are `end_turn`."""

OWN_REASONS = frozenset(
    {"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"}
    | {"model_context_window_exceeded"}
)
"""All words of this API."""

SERVICE_TIERS: Mapping[str, str] = {
    "default": "standard",
    "standard": "standard",
    "priority": "priority",
    "batch": "batch",
}
"""This API's service tiers, by the contract's names."""

_STOPPED_BY = ("stop_sequence", "stop_reason", "matched_stop")
"""Members of a choice in which providers say which stop sequence ended it: Anthropic, vLLM,
SGLang."""

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ANY_OBJECT = msgspec.json.Decoder(dict[str, object])


def message_id(completion_id: str) -> str:
    """Return the ID of a message."""
    return f"msg_{completion_id.removeprefix('chatcmpl-')}"


def usage_members(usage: Usage) -> Json:
    """Return the usage at the end of a stream. Input tokens do not include cached ones here."""
    read, written = usage.cache_read_token_count, usage.cache_write_token_count
    members: Json = {
        "input_tokens": max(0, usage.prompt_token_count - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.completion_token_count,
    }
    if usage.thinking_token_count:
        members["output_tokens_details"] = {"thinking_tokens": usage.thinking_token_count}
    return with_others(members, usage.extra_json)


def whole_usage(usage: Usage, service_tier: str) -> Json:
    """Return the usage of a message."""
    kept = usage.cache_write_1h_token_count
    return {
        **usage_members(usage),
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_token_count - kept,
            "ephemeral_1h_input_tokens": kept,
        },
        "service_tier": SERVICE_TIERS.get(service_tier),
    }


class Ending(NamedTuple):
    """End of an answer."""

    members: Json
    """`stop_reason`, `stop_sequence`, and `stop_details` where there are any."""
    others: Mapping[str, Raw]
    """Members of the choice that have no place there."""

    @property
    def explains_refusal(self) -> bool:
        """Whether the provider explains a refusal apart from the text."""
        return "stop_details" in self.members


class Choice(NamedTuple):
    """End of a choice, as its provider tells it."""

    finish_reason: str
    native_finish_reason: str
    extra_json: bytes


def ending(choice: Choice, stops: Sequence[str], *, called: bool, refused: bool) -> Ending:
    """Return the end of an answer, which has calls of tools if `called`, a refusal if `refused`."""
    others = _OBJECT.decode(choice.extra_json) if choice.extra_json else {}
    native = choice.native_finish_reason
    own = native in OWN_REASONS
    reason = native if own else STOP_REASONS.get(choice.finish_reason, "end_turn")
    if stopped_by := _stopped_by(others, stops):
        reason = "stop_sequence"
    elif reason == "end_turn" and (called or refused):
        reason = "tool_use" if called else "refusal"
    members: Json = {"stop_reason": reason, "stop_sequence": stopped_by}
    details = others.pop("stop_details", None)
    if details is not None and bytes(details)[:1] == b"{":
        members["stop_details"] = Raw(one_line(bytes(details)))
    return Ending(members, others)


def _stopped_by(members: dict[str, Raw], stops: Sequence[str]) -> str | None:
    """Return the stop sequence that ended the answer, and remove it from the members."""
    found = None
    for name in _STOPPED_BY:
        raw = members.get(name)
        if raw is None:
            continue
        value = msgspec.json.decode(raw)
        if value is None or value in stops:
            found = value or found
            del members[name]
    return found


class MessageMembers(NamedTuple):
    """Members of an answer's message that the contract has no fields for."""

    citations: Sequence[Json]
    blocks: Sequence[Json]
    """Blocks of other types."""
    others: Mapping[str, object]

    @classmethod
    def of(cls, extra_json: bytes, text: str) -> MessageMembers:
        """Return those of a message with this text."""
        others = _ANY_OBJECT.decode(extra_json) if extra_json else {}
        annotations = others.pop("annotations", None)
        parts = others.pop(OTHER_PARTS, None)
        return cls(
            [_citation(each, text) for each in _objects(annotations)],
            [each for each in _objects(parts) if each.get("type") not in _READ],
            others,
        )


_READ = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})


def _objects(value: object) -> Iterable[Json]:
    items = value if isinstance(value, list) else []
    return [each for each in items if isinstance(each, dict)]


def _citation(annotation: Json, text: str) -> Json:
    """Return an annotation in OpenAI's form as a citation. Others are citations already."""
    cited = annotation.get("url_citation")
    if not isinstance(cited, dict):
        return annotation
    begin, end = cited.get("start_index"), cited.get("end_index")
    is_span = isinstance(begin, int) and isinstance(end, int)
    return {
        "cited_text": text[begin:end] if is_span else "",
        "encrypted_index": "",
        "title": None,
        **{name: value for name, value in cited.items() if name not in _SPAN},
        "type": "web_search_result_location",
    }


_SPAN = ("start_index", "end_index")
