"""Members that chunks and whole answers have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import msgspec

from gateway.surfaces.other_members import one_line, with_others
from services.common.money import exact_usd
from services.domain.conversation import ToolCall
from services.domain.events import FinishReason, ToolCallDelta
from services.domain.usage import COMPLETION_SHARES, PROMPT_SHARES, Usage, shares_of

STOP = "stop"
"""OpenAI's word for reasons newer than this edge."""

_TOOLS_REASONS = {reason: reason for reason in get_args(FinishReason) if reason}
FINISH_REASONS: Mapping[bool, Mapping[str, str]] = {
    False: _TOOLS_REASONS,
    True: {**_TOOLS_REASONS, "tool_calls": "function_call"},
}
"""OpenAI's words for finish reasons; by True in the form with functions, from before tools."""

# Members of usage, by name: `audio_tokens` for `prompt_audio_token_count`.
_PROMPT_SHARES = tuple(
    (name, name.removeprefix("prompt_").replace("_token_count", "_tokens"))
    for name in PROMPT_SHARES
)
_COMPLETION_SHARES = tuple(
    (name, name.removeprefix("completion_").replace("_token_count", "_tokens"))
    for name in COMPLETION_SHARES
)


def extra_content(call: ToolCall | ToolCallDelta) -> dict[str, object]:
    """Return the content that a provider wants back with a tool call, as a member of the call."""
    if not call.extra_content_json:
        return {}
    return {"extra_content": msgspec.Raw(one_line(call.extra_content_json))}


def function_call(function: dict[str, object], call: ToolCall | ToolCallDelta) -> dict[str, object]:
    """Return a call in the form that preceded tools, which has all members in one object."""
    members = with_others({"function": function}, call.extra_json)
    del members["function"]
    return members | function | extra_content(call)


def render_usage(usage: Usage, cost_nano_usd: int | None) -> dict[str, object]:
    """Return OpenAI's `usage`, with this API's `thinking_tokens`, and `cost` in US dollars."""
    rendered: dict[str, object] = {
        "prompt_tokens": usage.prompt_token_count,
        "completion_tokens": usage.completion_token_count,
        "total_tokens": usage.total_token_count,
    }
    if usage.thinking_token_count:
        rendered["thinking_tokens"] = usage.thinking_token_count
    prompt = {
        "cached_tokens": usage.cache_read_token_count,
        "cache_write_tokens": usage.cache_write_token_count,
    }
    completion = {"reasoning_tokens": usage.thinking_token_count}
    if any(shares_of(usage)):
        prompt |= _shares(usage, _PROMPT_SHARES)
        completion |= _shares(usage, _COMPLETION_SHARES)
    rendered["prompt_tokens_details"] = prompt
    rendered["completion_tokens_details"] = completion
    if cost_nano_usd is not None:
        rendered["cost"] = msgspec.Raw(exact_usd(cost_nano_usd).encode())
    return with_others(rendered, usage.extra_json) if usage.extra_json else rendered


def _shares(usage: Usage, shown: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return shares of a total that are more than 0: `audio_tokens` and the like."""
    shares = {}
    for name, member in shown:
        if count := getattr(usage, name):
            shares[member] = count
    return shares
