"""Dialect of OpenAI's chat completions, which most other providers also speak.

Modules, in the order in which data flows:

    request              body of `POST /chat/completions`
    messages             messages and tools in the request
    cache_marks          marks of prefixes that the provider is asked to cache
    pass_through         fields unknown to the contract that are sent on
    nested_pass_through  unknown members of messages, parts and tools that are sent on
    harmless_fields      fields that change neither price, model, storage nor an address
    plain_requests       bodies of requests with texts and frequent parameters alone
    text_completions     body of `POST /completions`, which continue a text
    response             answers, whole or streamed
    wire                 types of an answer's JSON
    odd_fields           fields of unexpected types, read as well as they can be
    answer_members       members of an answer beside its choices
    choice               state of one choice, and choice of a stream, as events
    whole_choice         choice of a whole answer
    reasoning            reasoning under the providers' various field names
    tool_calls           tool calls assembled from their pieces
    logprobs             log probabilities, also in the older API's form
    extras               members of messages and choices without a field
    usage                token usage of an answer
"""

from __future__ import annotations

from collections.abc import Callable

from services.domain.spec import ChatCompletionSpec
from services.providers.base import Dialect, Notes, Target, UpstreamRequest
from services.providers.openai import request, text_completions
from services.providers.openai.response import OpenAiDecoder
from services.providers.usual_api import UsualApi


class OpenAiDialect(UsualApi):
    """Translation to and from chat completions. See `services.providers.base.Dialect`."""

    def encode(
        self, spec: ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
    ) -> UpstreamRequest:
        """Encode `spec` as the provider's request."""
        if spec.text_completion is not None:
            return text_completions.encode(spec, target, notes, stream=stream)
        return request.encode(spec, target, notes, stream=stream)

    decoder: Callable[..., OpenAiDecoder] = staticmethod(OpenAiDecoder)
    """Creates the decoder of one answer."""


DIALECT: Dialect = OpenAiDialect()
