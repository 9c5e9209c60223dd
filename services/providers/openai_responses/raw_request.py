"""Raw lane of the Responses API: requests of its own clients pass byte for byte.

The provider is told to store nothing, whatever the request says. A request is translated if it
relies on something that the provider stores, has reasoning that another provider has sealed, or is
of a form that the model is known to refuse; for callers that pay, also if it has members whose
price is not known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from services.capabilities import Capabilities
from services.common.json_places import members, with_members
from services.common.seal_prefixes import SEAL
from services.domain.conversation import Message, TextPart
from services.domain.events import Event, RawForm
from services.domain.raw_request import RawApi, RawRequest
from services.domain.spec import EFFORTS, ChatCompletionSpec
from services.errors import invalid
from services.providers.base import Notes, Target, UpstreamRequest
from services.providers.openai_responses.own_fields import INCLUDE
from services.providers.openai_responses.raw_answer import RawResponseDecoder
from services.providers.openai_responses.request import LOGPROBS, PATH, SEALED_REASONING
from services.providers.openai_responses.response import ResponsesDecoder
from services.providers.openai_responses.tools import NAMESPACE, knows_tool
from services.providers.raw_answer import translated_events
from services.providers.raw_lane import RawFacts
from services.providers.raw_reading import (
    ABSENT,
    EMPTY,
    has_hidden_letter,
    lenient,
    opened,
    read,
    some_tools,
    words_pattern,
)
from services.providers.translate.output_limits import forced_limit, longest_answer
from services.providers.translate.thinking import plan
from services.providers.translate.unseen_reasoning import hidden_tokens, reasons_unseen

LIMIT, STORE = "max_output_tokens", "store"

OWN_MEMBERS = frozenset(
    {
        *("model", "input", "instructions", "stream", "stream_options", LIMIT, STORE, INCLUDE),
        *("temperature", "top_p", "top_logprobs", "text", "reasoning", "truncation"),
        *("tools", "tool_choice", "parallel_tool_calls", "max_tool_calls"),
        *("user", "safety_identifier", "prompt_cache_key", "background"),
        "client_metadata",
    }
)
"""Members that change neither the price of a token nor what is stored. Not here: `service_tier`
(other prices), `prompt_cache_retention` and `prompt_cache_options` (storage), `metadata` (shown to
the operator alone), `context_management` (a further answer)."""

KEPT = frozenset({"previous_response_id", "conversation", "prompt"})
"""Members that name something that the provider keeps."""

_MEDIA = (
    *(b'input_image"', b'input_file"', b'input_audio"', b'computer_screenshot"'),
    *(b'image_url"', b'file_id"', b'file_url"', b'file_data"'),
)
"""Words that every image, document or audio clip has in its JSON."""
_KEPT_ITEMS = frozenset({b'item_reference"', b'reasoning"'})
"""Types of items that may rely on what the provider keeps."""
_WORDS = words_pattern((*_MEDIA, *_KEPT_ITEMS, SEAL))

_DEFAULT = frozenset({*EMPTY, b"1", b"1.0"})
"""Values of parameters that every model takes."""

_NO_REASONING = frozenset({*EMPTY, b'{"effort":null}', b'{"effort":null,"summary":null}'})
_NAMES = frozenset({"user", "safety_identifier", "prompt_cache_key"})
_NULLS = (ABSENT, Raw(b"null"))
_TRUE = b"true"
_FALSE = Raw(b"false")
_TEXT = msgspec.json.Decoder(str)
_FLAG = msgspec.json.Decoder(bool | None)
_LIMIT = msgspec.json.Decoder(int | None)
_TOOLS = msgspec.json.Decoder(list[Raw] | None)
_FUNCTIONS = frozenset({"function", "custom"})


class _Item(msgspec.Struct, gc=False):
    type: str | None = None
    encrypted_content: str | None = None


class _Reasoning(msgspec.Struct, gc=False):
    effort: str | None = None


class _KnownReasoning(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    effort: Raw = ABSENT
    summary: Raw = ABSENT
    generate_summary: Raw = ABSENT
    context: Raw = ABSENT


class ResponsesLane:
    """See `services.providers.raw_lane.RawLane`."""

    api: RawApi = "openai_responses"

    def read(self, request: RawRequest, *, is_prompt: bool = False) -> RawFacts:
        """Read a request. One for the tokens of its prompt does not pass: it is translated."""
        for name in request.headers:
            raise invalid("raw.headers", f"The API has no header {name[:64]!a}.")
        found = request.members or opened(request.body)
        spec = ChatCompletionSpec(
            model=read("model", found, _TEXT),
            max_tokens=read(LIMIT, found, _LIMIT) if LIMIT in found else None,
            tools=some_tools(found["tools"], _FUNCTIONS) if "tools" in found else [],
            **(_names(found) if _NAMES & found.keys() else {}),
            **(_effort(found["reasoning"]) if "reasoning" in found else {}),
        )
        words = set(_WORDS.findall(request.body))
        return RawFacts(
            request=request,
            spec=spec,
            stream="stream" in found and bool(read("stream", found, _FLAG)),
            has_media=not words.isdisjoint(_MEDIA) or has_hidden_letter(request.body),
            members=found,
            needs_translation=is_prompt or _needs_translation(found, words),
        )

    def takes(self, facts: RawFacts, target: Target) -> bool:
        """Return whether a request may pass to a target as it is."""
        allowed, found = target.channel.pass_through, facts.members
        if allowed is False or target.thinking_by_name or facts.needs_translation:
            return False
        if not _is_limit_accepted(facts.spec.max_tokens, target.capabilities):
            return False
        if not _is_accepted(found, target) or not _may_send_tools(found, target):
            return False
        if target.sends_provider_tools or allowed is True:
            return True
        more = allowed if isinstance(allowed, tuple) else ()
        are_known = found.keys() <= OWN_MEMBERS or all(
            name in OWN_MEMBERS or name in more or bytes(value) in EMPTY
            for name, value in found.items()
        )
        return are_known and (
            "reasoning" not in found or lenient(found["reasoning"], _KnownReasoning) is not None
        )

    def beginning(self, facts: RawFacts) -> ChatCompletionSpec:
        """Return the beginning of the conversation as texts, by which its calls are known."""
        found = facts.members
        items = lenient(found.get("input"), list[Raw]) or [found.get("input", ABSENT)]
        texts = [found.get("tools", ABSENT), found.get("instructions", ABSENT), *items[:1]]
        parts = [TextPart(text=bytes(text).decode(errors="replace")) for text in texts]
        return replace(facts.spec, messages=[Message(role="user", content=[*parts])])

    def encode(self, facts: RawFacts, target: Target, notes: Notes) -> UpstreamRequest:
        """Return the request with the target's name of the model, and our rules of storage."""
        spec, body = facts.spec, facts.request.body
        new: dict[str, Raw] = {}
        if spec.model != target.model:
            new["model"] = Raw(msgspec.json.encode(target.model))
        new |= _storage(facts.members, target, notes)
        thinking_tokens = 0
        is_limited = spec.max_tokens is None and target.limits_output
        if is_limited or reasons_unseen(spec, target):
            thinking = plan(spec, target, Notes())
            thinking_tokens = hidden_tokens(spec, thinking, target.capabilities)
            limit = forced_limit(target, thinking.budget_tokens, notes) if is_limited else None
            if limit is not None:
                new[LIMIT] = Raw(b"%d" % max(limit, target.capabilities.min_max_tokens))
        return UpstreamRequest(
            path=PATH,
            body=with_members(body, facts.members, new) if new else body,
            streamed=facts.stream,
            may_stream=facts.stream,
            thinking_tokens=thinking_tokens,
        )

    def translated(self, form: RawForm, data: bytes) -> list[Event]:
        """Return the events of a complete answer that was passed on, but for its start."""
        return translated_events(ResponsesDecoder("", details=True), form, data)

    decoder = staticmethod(RawResponseDecoder)
    """Creates the decoder of one answer."""


def _text(found: Mapping[str, Raw], name: str) -> str:
    if name not in found:
        return ""
    value = lenient(found.get(name), str)
    return value if isinstance(value, str) else ""


def _names(found: Mapping[str, Raw]) -> dict[str, Any]:
    """Return the fields of a spec that name the end user, and what the prompt is cached by."""
    return {
        "user": _text(found, "user") or _text(found, "safety_identifier"),
        "prompt_cache_key": _text(found, "prompt_cache_key"),
    }


def _effort(raw: Raw) -> dict[str, Any]:
    reasoning = lenient(raw, _Reasoning)
    if reasoning is None or not reasoning.effort:
        return {}
    name = "reasoning_effort" if reasoning.effort in EFFORTS else "other_reasoning_effort"
    return {name: reasoning.effort}


def _needs_translation(found: Mapping[str, Raw], words: Collection[bytes]) -> bool:
    """Whether a request relies on what is not here, or has reasoning that the provider lacks.

    `words` are those of `_WORDS` that it has.
    """
    for name in KEPT & found.keys():
        if bytes(found[name]) not in EMPTY:
            return True
    if bytes(found.get("background", ABSENT)) == _TRUE or SEAL in words:
        return True
    if found.get("input", ABSENT) in _NULLS:
        return True
    if _KEPT_ITEMS.isdisjoint(words):
        return False
    return any(
        item.type == "item_reference" or (item.type == "reasoning" and not item.encrypted_content)
        for item in lenient(found["input"], list[_Item]) or ()
    )


def _is_limit_accepted(limit: int | None, capabilities: Capabilities) -> bool:
    """Whether a limit is one that the model takes; others are changed, or refused."""
    least = max(1, capabilities.min_max_tokens)
    return limit is None or least <= limit <= longest_answer(capabilities)


def _is_accepted(found: Mapping[str, Raw], target: Target) -> bool:
    """Whether no member is one that the channel or the model is known to refuse."""
    capabilities, quirks = target.capabilities, target.channel.quirks
    if (quirks.drops or quirks.renames) and not _is_plain(found, target):
        return False
    refused = capabilities.rejects | capabilities.thinking_rejects
    for name in refused & found.keys():
        if bytes(found[name]) not in _DEFAULT:
            return False
    if "text" in found and "verbosity" in refused and b'"verbosity"' in bytes(found["text"]):
        return False
    if INCLUDE in found and not _is_include_accepted(bytes(found[INCLUDE]), capabilities):
        return False
    reasoning = found.get("reasoning", ABSENT)
    return capabilities.thinking != "none" or bytes(reasoning) in _NO_REASONING


def _is_include_accepted(include: bytes, capabilities: Capabilities) -> bool:
    if not capabilities.logprobs and LOGPROBS.encode() in include:
        return False
    return capabilities.named_thinking or SEALED_REASONING.encode() not in include


def _is_plain(found: Mapping[str, Raw], target: Target) -> bool:
    """Whether a request has no member that this channel calls otherwise, or drops."""
    quirks = target.channel.quirks
    names = {*quirks.drops, *quirks.renames}
    if "max_tokens" in names:
        names.add(LIMIT)
    if "response_format" in names:
        names.add("text")
    return names.isdisjoint(found) and not (target.limits_output and LIMIT in names)


def _may_send_tools(found: Mapping[str, Raw], target: Target) -> bool:
    """Whether the caller runs all tools, or may use those that the provider runs."""
    if bytes(found.get("tools", ABSENT)) in EMPTY:
        return True
    knows = knows_tool(target)
    try:
        for tool in _TOOLS.decode(found["tools"]) or ():
            kind, within = _kind_of(tool)
            if kind not in _FUNCTIONS and kind != NAMESPACE and not knows(kind):
                return False
            if any(_kind_of(each)[0] not in _FUNCTIONS for each in within):
                return False  # The translation takes them out of the namespace.
    except (ValueError, RecursionError):
        return False  # The translation says what is wrong with them.
    return True


def _kind_of(tool: Raw) -> tuple[str, Sequence[Raw]]:
    """Return the type of a tool, and the tools that a namespace has. Raises ValueError."""
    found = members(tool)
    kind = _TEXT.decode(found.get("type", Raw(b'""')))
    return kind, _TOOLS.decode(found.get("tools", Raw(b"null"))) or () if kind == NAMESPACE else ()


def _storage(found: Mapping[str, Raw], target: Target, notes: Notes) -> dict[str, Raw]:
    """Return the members that let the provider store nothing.

    A client that relies on what is stored sends reasoning back without having asked for its seal.
    """
    stored = bytes(found.get(STORE, ABSENT))
    if stored == b"false":
        return {}
    if stored == _TRUE:
        notes.dropped(STORE, f"`{STORE}` is not passed on to the provider.")
    new = {STORE: _FALSE}
    if target.capabilities.named_thinking:
        include = lenient(found.get(INCLUDE), list[str]) or []
        if SEALED_REASONING not in include:
            new[INCLUDE] = Raw(msgspec.json.encode([*include, SEALED_REASONING]))
    return new
