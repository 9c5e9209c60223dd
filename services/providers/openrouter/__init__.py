"""The dialect of OpenRouter: OpenAI's, with sampling, reasoning and errors of its own.

Its `reasoning_details` are sealed into the reasoning state and sent back unchanged with
the next turn, so that models go on from where they were in a loop of tool calls.
"""

from __future__ import annotations

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.providers.base import Dialect, Notes, Target, UpstreamRequest
from services.providers.openai import OpenAiDialect
from services.providers.openai.reasoning import Detail
from services.providers.openai.response import OpenAiDecoder
from services.providers.openrouter import request
from services.providers.translate import reasoning_state
from services.providers.translate.reasoning_state import Details


class OpenRouterDialect(OpenAiDialect):
    """See `services.providers.base.Dialect`."""

    def encode(
        self, spec: pb.ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
    ) -> UpstreamRequest:
        """OpenRouter's form of `spec`."""
        return request.encode(spec, target, notes, stream=stream)

    def decoder(self, target: Target) -> OpenAiDecoder:
        """A decoder for one answer, which keeps the state of its reasoning."""
        name = target.channel.dialect

        def pack(details: list[Detail]) -> str:
            return reasoning_state.pack(name, [Details(msgspec.Raw(msgspec.json.encode(details)))])

        return OpenAiDecoder(pack)


DIALECT: Dialect = OpenRouterDialect()
