"""Raw lane of the Messages API: requests of its own clients pass byte for byte.

Callers that pay for what they use may send nothing whose price is not known: members, tools and
betas are on lists then, as those of translated requests are. A request with others is translated,
and so is one for a longer answer than the model is known to give, which no hold would cover.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from services.common.json_places import members, with_members
from services.common.seal_prefixes import SEAL
from services.domain.conversation import Message, TextPart
from services.domain.events import Event, RawForm
from services.domain.raw_request import RawApi, RawRequest
from services.domain.spec import EFFORTS, ChatCompletionSpec, Thinking
from services.errors import invalid
from services.providers.anthropic.betas import is_harmless, only_clears
from services.providers.anthropic.raw_answer import RawMessageDecoder
from services.providers.anthropic.response import AnthropicDecoder
from services.providers.anthropic.tools import is_charged
from services.providers.base import Notes, Target, UpstreamRequest
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
from services.providers.translate.output_limits import longest_answer
from services.providers.translate.thinking import plan
from services.providers.translate.tool_types import MESSAGES_RUN_BY_CALLERS
from services.providers.translate.unseen_reasoning import hidden_tokens, reasons_unseen

BETA, VERSION = "anthropic-beta", "anthropic-version"
HEADERS_MAX = 1024
"""Characters of the headers. Requests with longer ones are translated."""

OWN_MEMBERS = frozenset(
    {
        *("model", "messages", "system", "max_tokens", "stop_sequences", "stream"),
        *("temperature", "top_p", "top_k", "thinking", "output_config", "output_format"),
        *("tools", "tool_choice", "metadata", "service_tier", "cache_control"),
        "context_management",
    }
)
"""Members that change neither the price of a token nor what is stored. Not here: `container` (code
by the hour), `speed` and `inference_geo` (dearer tokens), `mcp_servers` (addresses)."""

_MEDIA = (b'source"', b'image"', b'document"', b'file_id"', b'container_upload"')
"""Words that every image or document has in its JSON."""
_WORDS = words_pattern((*_MEDIA, SEAL))
_HEADER = re.compile(r"[\x20-\x7e]*")

_REASONING = frozenset({"thinking", "output_config"})
_CUSTOM: Final = "custom"
_OWN_TOOLS = frozenset({None, _CUSTOM})
_TEXT = msgspec.json.Decoder(str)
_FLAG = msgspec.json.Decoder(bool | None)
_LIMIT = msgspec.json.Decoder(int)
_TOOLS = msgspec.json.Decoder(list[Raw] | None)


class _Thinking(msgspec.Struct):
    type: str = ""
    budget_tokens: int | None = None
    display: str | None = None


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _OutputConfig(msgspec.Struct):
    effort: str | None = None


class MessagesLane:
    """See `services.providers.raw_lane.RawLane`."""

    api: RawApi = "anthropic_messages"

    def read(self, request: RawRequest, *, is_prompt: bool = False) -> RawFacts:
        """Read a request, or one for the tokens of its prompt, which needs no `max_tokens`."""
        if request.headers:
            _check_headers(request.headers)
        found = request.members or opened(request.body)
        spec = ChatCompletionSpec(
            model=read("model", found, _TEXT),
            max_tokens=None if is_prompt else _limit(found),
            user=_user(found["metadata"]) if "metadata" in found else "",
            tools=some_tools(found["tools"], _OWN_TOOLS) if "tools" in found else [],
            **(_reasoning(found) if _REASONING & found.keys() else {}),
        )
        words = set(_WORDS.findall(request.body))
        is_sealed = SEAL in words
        words.discard(SEAL)
        return RawFacts(
            request=request,
            spec=spec,
            stream="stream" in found and bool(read("stream", found, _FLAG)),
            has_media=bool(words) or has_hidden_letter(request.body),
            members=found,
            needs_translation=is_sealed,
        )

    def takes(self, facts: RawFacts, target: Target) -> bool:
        """Return whether a request may pass to a target as it is."""
        allowed = target.channel.pass_through
        if allowed is False or target.thinking_by_name or facts.needs_translation:
            return False
        if sum(map(len, facts.request.headers.values())) > HEADERS_MAX:
            return False
        if target.sends_provider_tools or allowed is True:
            return True
        more = allowed if isinstance(allowed, tuple) else ()
        return (
            facts.members.keys() <= OWN_MEMBERS
            or all(
                name in OWN_MEMBERS or name in more or bytes(value) in EMPTY
                for name, value in facts.members.items()
            )
        ) and (
            (facts.spec.max_tokens or 0) <= longest_answer(target.capabilities)
            and (
                BETA not in facts.request.headers or all(map(is_harmless, betas_of(facts.request)))
            )
            and _costs_are_known(facts.members, target)
        )

    def beginning(self, facts: RawFacts) -> ChatCompletionSpec:
        """Return the beginning of the conversation as texts, by which its calls are known."""
        members, first = facts.members, lenient(facts.members.get("messages"), list[Raw])
        texts = [members.get("tools", ABSENT), members.get("system", ABSENT), *(first or ())[:1]]
        parts = [TextPart(text=bytes(text).decode(errors="replace")) for text in texts]
        return replace(facts.spec, messages=[Message(role="user", content=[*parts])])

    def encode(
        self,
        facts: RawFacts,
        target: Target,
        notes: Notes,  # noqa: ARG002
    ) -> UpstreamRequest:
        """Return the request with the target's name of the model."""
        request, spec = facts.request, facts.spec
        body = request.body
        if spec.model != target.model:
            body = with_members(
                body, facts.members, {"model": Raw(msgspec.json.encode(target.model))}
            )
        version = target.channel.quirks.anthropic_version
        thinking_tokens = 0
        if reasons_unseen(spec, target):
            thinking = plan(spec, target, Notes())
            thinking_tokens = hidden_tokens(spec, thinking, target.capabilities)
        return UpstreamRequest(
            path="/messages",
            body=body,
            streamed=facts.stream,
            may_stream=facts.stream,
            headers={**({VERSION: version} if version else {}), **request.headers},
            thinking_tokens=thinking_tokens,
        )

    def translated(self, form: RawForm, data: bytes) -> list[Event]:
        """Return the events of a complete answer that was passed on, but for its start."""
        return translated_events(AnthropicDecoder(details=True), form, data)

    decoder = staticmethod(RawMessageDecoder)
    """Creates the decoder of one answer."""


def betas_of(request: RawRequest) -> Sequence[str]:
    """Return the names in the header with betas."""
    names = (name.strip() for name in request.headers.get(BETA, "").split(","))
    return list(dict.fromkeys(filter(None, names)))


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if name not in {BETA, VERSION} or _HEADER.fullmatch(value) is None:
            raise invalid("raw.headers", f"The API has no header {name[:64]!a} of this form.")


def _limit(found: Mapping[str, Raw]) -> int:
    limit: int = read("max_tokens", found, _LIMIT)
    if limit < 0:  # Some servers take one for no limit.
        raise invalid("max_tokens", "max_tokens: It must not be negative.")
    return limit


def _user(metadata: Raw) -> str:
    found = lenient(metadata, _Metadata)
    return (found.user_id or "") if found is not None else ""


def _reasoning(found: Mapping[str, Raw]) -> dict[str, Any]:
    """Return the fields of a spec that say how the model reasons, as far as they can be read.

    The provider refuses others.
    """
    values: dict[str, Any] = {}
    thinking = lenient(found.get("thinking"), _Thinking)
    if thinking is not None and thinking.type in {"enabled", "disabled", "adaptive"}:
        values["thinking"] = Thinking(
            mode=thinking.type,
            budget_tokens=thinking.budget_tokens,
            excluded=thinking.display == "omitted",
        )
    config = lenient(found.get("output_config"), _OutputConfig)
    if config is not None and config.effort in EFFORTS:
        values["reasoning_effort"] = config.effort
    return values


def _costs_are_known(found: Mapping[str, Raw], target: Target) -> bool:
    """Whether a request has no tool without a price, and no context that the provider compacts."""
    management = found.get("context_management")
    if management is not None and bytes(management) not in EMPTY and not only_clears(management):
        return False
    try:
        tools = _TOOLS.decode(found["tools"]) if "tools" in found else None
        return all(_has_price(tool, target) for tool in tools or ())
    except (ValueError, RecursionError):
        return False  # The translation says what is wrong with them.


def _has_price(tool: Raw, target: Target) -> bool:
    """Whether a tool is run by the client, or its calls are charged."""
    kind = members(tool).get("type")
    name = _CUSTOM if kind is None or bytes(kind) == b"null" else _TEXT.decode(kind)
    if name == _CUSTOM or MESSAGES_RUN_BY_CALLERS.fullmatch(name) is not None:
        return True
    return is_charged(name, target)
