"""Members of an answer that the contract has no fields for."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from services.common.json_errors import NOT_JSON
from services.common.known_members import member
from services.domain.usage import Usage
from services.providers.base import TOKENS_MAX
from services.providers.openai import wire as chat_wire
from services.providers.openai.extras import WITHHELD
from services.providers.openai.usage import normalized
from services.providers.openai_responses import wire

_ECHOED = frozenset(
    name
    for names in (
        # Of the answer itself.
        "id object created_at completed_at status status_details error incomplete_details output",
        "output_text usage service_tier model tool_calls total_tokens",
        # Of the request, which the answer repeats.
        "background conversation context_management frequency_penalty instructions",
        "max_output_tokens max_tool_calls metadata parallel_tool_calls presence_penalty",
        "previous_response_id prompt prompt_cache_key prompt_cache_options",
        "prompt_cache_retention reasoning safety_identifier store temperature text tool_choice",
        "tools top_logprobs top_p truncation user",
    )
    for name in names.split()
)

# The operator's bill, and the operator's account.
_OPERATORS = WITHHELD | {"billing"}


def beside_json(response: bytes | Raw) -> bytes:
    """Return the members of an answer that neither are read nor repeat the request, as JSON."""
    members = wire.others(response, _ECHOED | _OPERATORS)
    return msgspec.json.encode(members) if members else b""


class _PromptDetails(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    cached_tokens: int = 0


class _CompletionDetails(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    reasoning_tokens: int = 0


class _PlainUsage(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Usage as OpenAI reports it."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: _PromptDetails = _PromptDetails()
    output_tokens_details: _CompletionDetails = _CompletionDetails()


_PLAIN_USAGE = msgspec.json.Decoder(_PlainUsage)


def usage_of(usage: Raw) -> Usage | None:
    """Return a usage in the contract's terms. None if it is implausible."""
    return _plain_usage(usage) or _any_usage(usage)


def _plain_usage(raw: Raw) -> Usage | None:
    """Return a usage of OpenAI's members whose figures agree. None: it is another one."""
    try:
        found = _PLAIN_USAGE.decode(raw)
    except NOT_JSON:
        return None
    prompt, completion, total = found.input_tokens, found.output_tokens, found.total_tokens
    cached = found.input_tokens_details.cached_tokens
    reasoning = found.output_tokens_details.reasoning_tokens
    agrees = (
        0 <= cached <= prompt <= total <= TOKENS_MAX
        and prompt + completion == total
        and prompt > 0
        and 0 <= reasoning <= completion
    )
    if not agrees:
        return None
    return Usage(
        prompt_token_count=prompt,
        completion_token_count=completion,
        total_token_count=total,
        thinking_token_count=reasoning,
        cache_read_token_count=cached,
        source="provider",
    )


def _any_usage(usage: Raw) -> Usage | None:
    found, unknown = chat_wire.decode(b'{"usage":%b}' % bytes(usage))
    return None if found.usage is None else normalized(found.usage, member(unknown, "usage"))
