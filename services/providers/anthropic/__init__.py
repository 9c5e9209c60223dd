"""Anthropic's Messages API, spoken by Anthropic and by providers that imitate it.

    request    a spec as a body of `POST /messages`
    messages   the conversation in it
    parts      the parts of its messages
    tools      the tools in it, and the choice between them
    events     the API's events, typed
    usage      the tokens they report
    blocks     the blocks of an answer while they come
    response   events as chunks of our contract

Reference: https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping

from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.errors import UpstreamError
from services.providers.anthropic.request import encode
from services.providers.anthropic.response import AnthropicDecoder
from services.providers.base import Decoder, Dialect, Notes, Target, UpstreamRequest
from services.providers.failures import provider_failure


class AnthropicDialect:
    """Translates to and from the Messages API."""

    def encode(
        self,
        spec: pb.ChatCompletionSpec,
        target: Target,
        notes: Notes,
        *,
        stream: bool = True,  # noqa: ARG002 - it does not matter, as the docstring says
    ) -> UpstreamRequest:
        """The request; always for a stream, since long answers time out otherwise."""
        return encode(spec, target, notes)

    def decoder(self, target: Target) -> Decoder:  # noqa: ARG002 - all models answer alike
        """A decoder for one answer."""
        return AnthropicDecoder()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """What a refusal means."""
        return provider_failure(status, headers, body)

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """The key, in the API's own header."""
        return {"x-api-key": key}


DIALECT: Dialect = AnthropicDialect()

__all__ = ["DIALECT"]
