"""Token usage, normalized: OpenAI-compatible providers count in different ways."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import msgspec

from services.common.known_members import member
from services.domain.usage import COMPLETION_SHARES, NOT_REPORTED, PROMPT_SHARES, Usage
from services.providers.base import TOKENS_MAX
from services.providers.openai import wire
from services.providers.openai.extras import WITHHELD, decoded

_PARTS = wire.OtherFields(
    *(wire.Usage, "prompt_tokens", "completion_tokens", "total_tokens"),
    *("input_tokens", "output_tokens"),
)
_NO_PROMPT_DETAILS, _NO_COMPLETION_DETAILS = wire.PromptDetails(), wire.CompletionDetails()

_reads = attrgetter(
    "prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens", "cache_read_input_tokens"
)

_DETAILS = (
    "prompt_tokens_details",
    "completion_tokens_details",
    "input_tokens_details",
    "output_tokens_details",
)

_PROMPT_SHARES = tuple(zip(PROMPT_SHARES, ("audio", "image", "text"), strict=True))
_COMPLETION_SHARES = tuple(
    zip(
        COMPLETION_SHARES,
        ("audio", "image", "text", "accepted_prediction", "rejected_prediction"),
        strict=True,
    )
)
"""Shares of a total: our names, and the providers' without `_tokens`."""


def normalized(found: wire.Usage, unknown: Any = None) -> Usage | None:
    """Usage in the contract's terms, with its unknown members. None if it is implausible.

    A total that is larger than its parts means reasoning that the provider left out of
    the completion (xAI and Google do), so the rest counts as completion. Cached tokens that
    the provider counts beside the prompt are added to it. Parts never exceed what they are
    part of. The prompt is 0 where the provider does not count it, whatever it has in its cache.
    """
    completion = found.completion_tokens or found.output_tokens or 0
    total = found.total_tokens or 0
    # 0 is no report: no prompt is that short.
    prompt = found.prompt_tokens or found.input_tokens or _unreported_prompt(found)
    has_parts = _PARTS.values(found) != _PARTS.unset
    reasoning, read, written = _read_parts(found) if has_parts else (0, 0, 0)
    figures = (prompt, completion, total, reasoning, read, written)
    if not 0 <= min(figures) <= max(figures) <= TOKENS_MAX:
        return None
    if not (prompt or completion or read or written):
        return None  # A total alone does not say what it consists of.
    if read or written:
        if found.prompt_tokens is None and found.cache_read_input_tokens is not None:
            prompt += read + written  # Anthropic's input tokens are those that were not cached.
        elif prompt:
            prompt += _beside(prompt, total - prompt - completion, reasoning, read, written)
    completion = max(completion, total - prompt)
    usage = Usage(
        prompt_token_count=int(prompt),
        completion_token_count=int(completion),
        total_token_count=int(prompt) + int(completion),
        source="provider",
        extra_json=_extra_json(unknown) if unknown else b"",
    )
    if not has_parts:
        return usage
    return msgspec.structs.replace(
        usage,
        thinking_token_count=int(min(reasoning, completion)),
        cache_read_token_count=int(min(read, prompt or read)),
        cache_write_token_count=int(min(written, prompt or written)),
        cache_write_1h_token_count=NOT_REPORTED if written else 0,
        **_shares(_prompt_details(found), _PROMPT_SHARES, prompt),
        **_shares(_completion_details(found), _COMPLETION_SHARES, completion),
    )


def _prompt_details(found: wire.Usage) -> wire.PromptDetails:
    return found.prompt_tokens_details or found.input_tokens_details or _NO_PROMPT_DETAILS


def _completion_details(found: wire.Usage) -> wire.CompletionDetails:
    return found.completion_tokens_details or found.output_tokens_details or _NO_COMPLETION_DETAILS


def _read_parts(found: wire.Usage) -> tuple[float, float, float]:
    """Tokens of the reasoning, and of the prompt those that were read from and written to a cache.

    0 is no report.
    """
    within = _prompt_details(found)
    reasoning = _completion_details(found).reasoning_tokens or found.reasoning_tokens or 0
    read = within.cached_tokens or next(filter(None, _reads(found)), 0)
    written = (
        within.cache_write_tokens
        or within.cache_creation_tokens
        or found.cache_creation_input_tokens
        or 0
    )
    return reasoning, read, written


def _unreported_prompt(found: wire.Usage) -> float:
    """Prompt tokens of a report of the completion and the total alone: the rest. 0: unknown."""
    completion = found.output_tokens if found.completion_tokens is None else found.completion_tokens
    return max((found.total_tokens or 0) - completion, 0) if completion else 0


def _shares(details: wire.Wire, names: Iterable[tuple[str, str]], total: float) -> dict[str, int]:
    """Shares of a total that are plausible, and more than 0."""
    counts = {ours: getattr(details, f"{theirs}_tokens", None) for ours, theirs in names}
    return {name: int(min(count, total)) for name, count in counts.items() if count and count > 0}


def _extra_json(unknown: Any) -> bytes:
    """Members of usage that have no field, in the provider's form, without the operator's bill."""
    members = decoded(unknown)
    for name in _DETAILS:
        if inner := decoded(member(unknown, name)):
            members[name] = inner
    shown = {name: value for name, value in members.items() if name not in WITHHELD}
    return msgspec.json.encode(shown) if shown else b""


def _beside(prompt: float, rest: float, reasoning: float, read: float, written: float) -> float:
    """Cached tokens that the provider does not count as part of the prompt.

    They are the `rest` of the total, or that without reasoning which the provider left out of the
    completion, or exceed the prompt. A rest that is the reasoning has none of them.
    """
    if max(read, written) > prompt:
        return read + written
    cached = (read + written, read, written)
    found = (beside for beside in (rest, rest - reasoning) if beside > 0 and beside in cached)
    return 0 if rest == reasoning else next(found, 0)
