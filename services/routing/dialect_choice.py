"""Choice of a dialect for each request: OpenAI's chat completions or its Responses.

Some models are in Responses alone, and others reason there while they call tools. What only chat
completions have, such as several choices, keeps a request there where it can be. Requests of
Responses pass as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace

import msgspec

from services.capabilities import CapabilityOverrides, lookup
from services.domain.conversation import OtherPart
from services.domain.spec import ChatCompletionSpec
from services.providers.base import ModelRoute, Target
from services.providers.translate.other_types import ITEM_OF_RESPONSES

CHAT_COMPLETIONS = "openai"
"""Dialect of the channels that have both."""
RESPONSES = "openai-responses"

_ITEM = ITEM_OF_RESPONSES.encode()


def with_dialects(target: Target, overrides: CapabilityOverrides | None) -> Target:
    """Return a target in the dialect of all its requests, or with the other one that it has."""
    channel = target.channel
    if channel.dialect != CHAT_COMPLETIONS or channel.responses == "never":
        return target
    known = target.capabilities.responses_api
    if (known == "no" and channel.responses == "auto") or target.capabilities.embeddings:
        return target
    over_responses = replace(
        target,
        channel=msgspec.structs.replace(channel, dialect=RESPONSES),
        capabilities=lookup(target.model, overrides, dialect=RESPONSES),
        over_chat=replace(target, replaces_responses=True) if channel.responses == "auto" else None,
    )
    if known == "only" or channel.responses == "always":
        return over_responses
    return replace(target, over_responses=over_responses)


def routes_for(
    spec: ChatCompletionSpec,
    routes: Sequence[ModelRoute],
    passes: Callable[[Target], bool] | None = None,
    lacking: Container[str] = (),
) -> Sequence[ModelRoute]:
    """Return the routes with each target in the dialect of this request.

    `passes` says whether it passes to a target as it is. None: it passes to none. `lacking` are the
    channels whose servers have shown that they have no Responses.
    """
    needs_items = _needs_items(spec)
    takes_tools = bool(spec.tools) and (spec.n or 1) == 1

    def chosen(target: Target) -> Target:
        lacks = target.channel.name in lacking
        other = over_responses(target)
        if other is None:
            return (target.over_chat or target) if lacks else target
        wants = takes_tools and target.capabilities.responses_api == "tools"
        if wants or needs_items or (passes is not None and passes(other)):
            return (other.over_chat or other) if lacks else other
        return target

    return [
        replace(route, targets=[chosen(target) for target in route.targets]) for route in routes
    ]


def over_responses(target: Target) -> Target | None:
    """Return the target in the dialect of Responses, if its requests may have either."""
    other = target.over_responses
    if other is None:
        return None
    return replace(
        other, charged_tools=target.charged_tools, sends_provider_tools=target.sends_provider_tools
    )


def _needs_items(spec: ChatCompletionSpec) -> bool:
    """Whether a request has tools or items that only Responses have."""
    if any(tool.other_json for tool in spec.tools):
        return True
    return any(
        isinstance(part, OtherPart) and _ITEM in part.json
        for message in spec.messages
        if message.role == "assistant"
        for part in message.content
    )
