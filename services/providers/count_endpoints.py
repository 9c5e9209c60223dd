"""Endpoints at which providers count the tokens of a prompt."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from services.common.json_places import members
from services.providers.base import TOKENS_MAX, UpstreamRequest
from services.providers.document_decoder import failure_in
from services.providers.unusable_answers import unreadable


class CountEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoint of a dialect. Its answer has `input_tokens`."""

    path: str
    members: frozenset[str]
    """Members of a request for a completion that the endpoint takes: those of the prompt."""

    def request(self, completion: UpstreamRequest) -> UpstreamRequest:
        """Return the request for a count of the prompt of `completion`."""
        found = members(completion.body)
        kept = {name: value for name, value in found.items() if name in self.members}
        return self.raw_request(replace(completion, body=msgspec.json.encode(kept)))

    def raw_request(self, request: UpstreamRequest) -> UpstreamRequest:
        """Return `request`, whose body is that of a count already, for this endpoint."""
        return replace(request, path=self.path, streamed=False, may_stream=False, thinking_tokens=0)


COUNT_ENDPOINTS: Mapping[str, CountEndpoint] = {
    # https://platform.claude.com/docs/en/api/messages/count_tokens
    "anthropic": CountEndpoint(
        path="/messages/count_tokens",
        members=frozenset(
            {
                *("model", "messages", "system", "tools", "tool_choice", "thinking"),
                *("output_config", "cache_control", "context_management"),
            }
        ),
    ),
    # https://platform.openai.com/docs/api-reference/responses/input-tokens
    "openai-responses": CountEndpoint(
        path="/responses/input_tokens",
        members=frozenset(
            {
                *("model", "input", "instructions", "tools", "tool_choice", "text", "reasoning"),
                *("parallel_tool_calls", "truncation"),
            }
        ),
    ),
}
"""The endpoints, by the dialects whose providers have one."""


class _Answer(msgspec.Struct):
    input_tokens: int


_ANSWER = msgspec.json.Decoder(_Answer)


def read_count(body: bytes) -> int:
    """Return the tokens of an answer, whatever the bytes. Raises UpstreamError."""
    try:
        tokens = _ANSWER.decode(body).input_tokens
    except msgspec.ValidationError:
        raise failure_in(body) from None
    except (ValueError, RecursionError):
        raise unreadable() from None
    if not 0 <= tokens <= TOKENS_MAX:
        raise unreadable()
    return tokens
