"""Dialect of Anthropic's Messages API, also spoken by compatible providers.

Modules, in the order in which data flows:

    request         body of `POST /messages`
    prefill         marks of a message from which the answer goes on
    messages        conversation in the request
    own_members     members of the API that have no field
    parts           content blocks of its messages
    tools           tools in the request, and the tool choice
    betas           features that are not generally available
    cache_marks     marks of prefixes that the provider is asked to cache
    response        answers, whole or streamed
    wire            types of the API's events
    whole_message   whole message in the domain's form
    extras          members of an answer without a field
    blocks          content blocks of an answer, and its sealed reasoning
    usage           token usage of an answer
    raw_request     requests that pass as they are
    raw_answer      answers that pass as they are

Reference: https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping

from services.domain.spec import ChatCompletionSpec
from services.providers.anthropic.raw_request import MessagesLane
from services.providers.anthropic.request import encode
from services.providers.anthropic.response import AnthropicDecoder
from services.providers.base import Dialect, Notes, Target, UpstreamRequest
from services.providers.raw_lane import RawLane
from services.providers.usual_api import UsualApi


class AnthropicDialect(UsualApi):
    """Translation to and from the Messages API. See `services.providers.base.Dialect`."""

    def encode(
        self,
        spec: ChatCompletionSpec,
        target: Target,
        notes: Notes,
        *,
        stream: bool = True,  # noqa: ARG002 - requests are always for a stream
    ) -> UpstreamRequest:
        """Encode `spec`, always for a stream: long whole answers time out."""
        return encode(spec, target, notes)

    decoder = staticmethod(AnthropicDecoder)
    """Creates the decoder of one answer."""

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """The key in the header `x-api-key`."""
        return {"x-api-key": key}


DIALECT: Dialect = AnthropicDialect()
RAW_LANE: RawLane = MessagesLane()

__all__ = ["DIALECT", "RAW_LANE"]
