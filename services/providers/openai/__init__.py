"""The dialect of OpenAI's chat completions, as OpenAI and most others speak it."""

from __future__ import annotations

from collections.abc import Mapping

from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.errors import UpstreamError
from services.providers import failures
from services.providers.base import Dialect, Notes, Target, UpstreamRequest
from services.providers.openai import request
from services.providers.openai.response import OpenAiDecoder


class OpenAiDialect:
    """See `services.providers.base.Dialect`."""

    def encode(
        self, spec: pb.ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
    ) -> UpstreamRequest:
        """The provider's form of `spec`."""
        return request.encode(spec, target, notes, stream=stream)

    def decoder(self, target: Target) -> OpenAiDecoder:  # noqa: ARG002 - other dialects look at it
        """A decoder for one answer."""
        return OpenAiDecoder()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """What a refusal means."""
        return failures.provider_failure(status, headers, body)

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """The key as a bearer token. Local servers need none."""
        return {"authorization": f"Bearer {key}"} if key else {}


DIALECT: Dialect = OpenAiDialect()
