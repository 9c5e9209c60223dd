"""Dialect of OpenRouter: OpenAI's, with its own sampling parameters, reasoning and errors.

Modules, in the order in which data flows:

    request    body of `POST /chat/completions`

Its `reasoning_details` are packed into the reasoning state and sent back unchanged with the next
turn, so that models continue their reasoning in a loop of tool calls.
"""

from __future__ import annotations

import msgspec

from services.common.reasoning_fragments import Detail
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Dialect, Notes, Target, UpstreamRequest
from services.providers.openai import OpenAiDialect
from services.providers.openai.response import OpenAiDecoder
from services.providers.openrouter import request
from services.providers.translate import reasoning_state
from services.providers.translate.reasoning_state import Details


class OpenRouterDialect(OpenAiDialect):
    """Translation to and from OpenRouter's API. See `services.providers.base.Dialect`."""

    def encode(
        self, spec: ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
    ) -> UpstreamRequest:
        """Encode `spec` as OpenRouter's request."""
        return request.encode(spec, target, notes, stream=stream)

    def decoder(self, target: Target, *, details: bool = False) -> OpenAiDecoder:
        """Create the decoder of one answer, which packs `reasoning_details` into its state."""
        name = target.channel.dialect

        def pack(details: list[Detail]) -> str:
            return reasoning_state.pack(name, [Details(msgspec.Raw(msgspec.json.encode(details)))])

        return OpenAiDecoder(target, details=details, pack_state=pack)


DIALECT: Dialect = OpenRouterDialect()
