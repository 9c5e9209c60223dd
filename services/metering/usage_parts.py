"""Consistent usage: no part exceeds its total, whatever a provider reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from services.domain.usage import COMPLETION_SHARES, PROMPT_SHARES, Usage, UsageSource


def consistent_usage(
    reported: Usage, prompt: int, completion: int, source: UsageSource, thinking_min: int = 0
) -> tuple[Usage, Sequence[str]]:
    """Return a usage with these totals and the parts of `reported`, and a flag per clipped part.

    No part exceeds its maximum, and the completion has at least `thinking_min` reasoning tokens.
    """
    read = min(max(0, reported.cache_read_token_count), prompt)
    write = min(max(0, reported.cache_write_token_count), prompt - read)
    write_1h = min(max(0, reported.cache_write_1h_token_count), write)
    thinking = min(max(0, reported.thinking_token_count), completion)
    usage = replace(
        reported,
        prompt_token_count=prompt,
        completion_token_count=completion,
        total_token_count=prompt + completion,
        thinking_token_count=max(thinking, thinking_min),
        cache_read_token_count=read,
        cache_write_token_count=write,
        cache_write_1h_token_count=write_1h,
        source=source,
        **_shares_within(reported, prompt, completion),
    )
    parts = {
        "cache_read": read,
        "cache_write": write,
        "cache_write_1h": write_1h,
        "thinking": thinking,
    }
    return usage, tuple(
        f"{name}_clipped"
        for name, count in parts.items()
        if count != getattr(reported, f"{name}_token_count")
    )


def _shares_within(reported: Usage, prompt: int, completion: int) -> Mapping[str, int]:
    """Return the shares of these totals, none of which is negative or larger than its total."""
    within: dict[str, int] = {}
    for names, total in ((PROMPT_SHARES, prompt), (COMPLETION_SHARES, completion)):
        for name in names:
            if count := getattr(reported, name):
                within[name] = min(max(0, count), total)
    return within
