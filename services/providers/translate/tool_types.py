"""Types of tools beside functions: those that callers run, and those that providers run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from services.domain.spec import Tool

MESSAGES_RUN_BY_CALLERS: Final = re.compile(r"(bash|computer|memory|text_editor)_20\d{6}")
"""Types of Anthropic's API that the caller runs, so that they cost tokens and nothing else. Of the
others, a search costs a cent, and code is billed by the hour
(https://platform.claude.com/docs/en/about-claude/pricing)."""

RESPONSES_RUN_BY_CALLERS: Final = re.compile(
    r"local_shell|apply_patch|tool_search|namespace|computer(_use_preview)?"
)
"""Types of OpenAI's Responses that the caller runs, or that cost nothing."""

VERSION: Final = re.compile(r"(_preview)?(_20\d{6}|_\d{4}_\d\d_\d\d)?$")
"""End of a type that is no part of the tool's name."""


class ProviderTool(NamedTuple):
    """Tool that the provider runs."""

    name: str
    uses_max: int | None
    """The most calls that the request allows. None: it does not say."""


class _OtherTool(msgspec.Struct):
    type: str
    max_uses: object = None


def provider_tools(tools: Iterable[Tool]) -> Iterator[ProviderTool]:
    """Yield the tools that a provider runs."""
    for tool in tools:
        if tool.other_json and (found := _provider_tool(tool.other_json)) is not None:
            yield found


def _provider_tool(other_json: bytes) -> ProviderTool | None:
    """Return a tool that the provider runs. None: the caller runs it, or it has no type."""
    try:
        found = msgspec.json.decode(other_json, type=_OtherTool)
    except (ValueError, RecursionError):
        return None
    patterns = (MESSAGES_RUN_BY_CALLERS, RESPONSES_RUN_BY_CALLERS)
    if any(each.fullmatch(found.type) for each in patterns):
        return None
    uses = found.max_uses if isinstance(found.max_uses, int) else None
    return ProviderTool(VERSION.sub("", found.type), uses)
