"""Requests of channel tests: a completion of a few tokens, or the vector of one text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from services.domain.completion import WholeAnswer
from services.domain.conversation import Message, TextPart
from services.domain.embeddings import EmbeddingSpec
from services.domain.events import Batch
from services.domain.spec import ChatCompletionSpec
from services.domain.usage import Usage
from services.metering.tokens import TokenCounter
from services.metering.usage import UsageMeter
from services.providers.base import Decoder, Dialect, Notes, ProviderApi, Target, UpstreamRequest
from services.providers.document_decoder import DocumentDecoder
from services.providers.embeddings.base import EmbeddingDialect

PROMPT = "Reply with the word OK."
ANSWER_TOKENS_MAX = 16
"""Limit of the answer: the smallest that OpenAI's Responses take."""


class ProbeRequest(Protocol):
    """One request to one target, and the usage of its answer."""

    @property
    def api(self) -> ProviderApi:
        """The provider's API."""

    @property
    def decoder(self) -> Decoder:
        """The decoder of the answer."""

    def encoded(self) -> UpstreamRequest:
        """Return the request in the target's form. Raise Failure."""

    def add(self, part: Batch | WholeAnswer) -> None:
        """Take a batch of the answer, or all of it. Raise UpstreamError if it lacks something."""

    def usage(self) -> Usage | None:
        """Return the tokens that were used so far. None: they are not known."""


def completion_spec(model: str) -> ChatCompletionSpec:
    """Return the completion that tests a model."""
    message = Message(role="user", content=[TextPart(text=PROMPT)])
    return ChatCompletionSpec(model=model, messages=[message], max_tokens=ANSWER_TOKENS_MAX)


class ProbeCompletion:
    """A completion of a few tokens, as a stream, so that the time to its first token is known."""

    def __init__(
        self, target: Target, dialects: Mapping[str, Dialect], counter: TokenCounter
    ) -> None:
        self._target = target
        self._spec = completion_spec(target.public_model)
        self.api = dialects[target.channel.dialect]
        self.decoder = self.api.decoder(target)
        self._meter = UsageMeter(self._spec, counter, max_tokens=ANSWER_TOKENS_MAX)
        self._has_begun = False

    def encoded(self) -> UpstreamRequest:
        """Return the request in the target's form. Raise Failure."""
        return self.api.encode(self._spec, self._target, Notes(), stream=True)

    def add(self, part: Batch | WholeAnswer) -> None:
        """Count a batch of the answer, or all of it."""
        self._has_begun = True
        if isinstance(part, WholeAnswer):
            self._meter.add_whole(part)
        else:
            self._meter.add(part)

    def usage(self) -> Usage | None:
        """Return what the provider reports, or our own count of an answer that has begun."""
        return self._meter.metered(self.decoder.usage).usage if self._has_begun else None


class ProbeEmbedding:
    """A call for the vector of one text."""

    def __init__(self, target: Target, dialects: Mapping[str, EmbeddingDialect]) -> None:
        self._target = target
        self._spec = EmbeddingSpec(model=target.public_model, texts=[PROMPT])
        self.api = dialects[target.channel.dialect]
        self.decoder = DocumentDecoder()
        self._tokens = 0

    def encoded(self) -> UpstreamRequest:
        """Return the request in the target's form. Raise Failure."""
        return self.api.encode(self._spec, self._target, Notes(), as_numbers=False)

    def add(self, part: Batch | WholeAnswer) -> None:  # noqa: ARG002 - the decoder has it
        """Read the vector. Raise UpstreamError if the answer has no vector."""
        self._tokens = self.api.read(self.decoder.body, self._spec, as_numbers=False).tokens

    def usage(self) -> Usage | None:
        """Return the tokens that the provider reports."""
        if not self._tokens:
            return None
        return Usage(
            prompt_token_count=self._tokens, total_token_count=self._tokens, source="provider"
        )
