"""Dialect of OpenAI's Responses API, also spoken by Azure, OpenRouter and compatible servers.

Modules, in the order in which data flows:

    request            body of `POST /responses`
    own_fields         fields of the API that are unknown to the contract
    input_items        conversation in the request
    assistant_items    an assistant's message as items, with its reasoning
    earlier_reasoning  reasoning in OpenRouter's form as items
    input_parts        content of messages
    tools              tools in the request, and the tool choice
    response           answers, whole or streamed
    wire               types of the API's JSON
    output             items of an answer
    answer_state       state that these items share
    message_item       message in an answer
    call_item          tool call in an answer
    reasoning_item     reasoning in an answer
    sealed_turn        reasoning of an answer, as it is sent back
    response_members   members of an answer without a field, and its usage
    missing_api        answers of servers without this API
    whole_choice       choice of an answer that is one document
    answer_end         end of an answer
    raw_request        requests that pass as they are
    raw_answer         answers that pass as they are

Reference: https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Mapping

from services.errors import UpstreamError
from services.providers.base import Decoder, Dialect, Target
from services.providers.openai_responses.missing_api import lacks_responses
from services.providers.openai_responses.raw_request import ResponsesLane
from services.providers.openai_responses.request import encode
from services.providers.openai_responses.response import ResponsesDecoder
from services.providers.raw_lane import RawLane
from services.providers.usual_api import UsualApi


class ResponsesDialect(UsualApi):
    """Translation to and from the Responses API. See `services.providers.base.Dialect`."""

    encode = staticmethod(encode)
    """Encodes a spec as the provider's request."""

    def decoder(self, target: Target, *, details: bool = False) -> Decoder:
        """Create the decoder of one answer."""
        return ResponsesDecoder(target.model, details=details)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Classify an error response."""
        failure = super().error(status, headers, body)
        failure.lacks_api = lacks_responses(status, body)
        return failure


DIALECT: Dialect = ResponsesDialect()
RAW_LANE: RawLane = ResponsesLane()

__all__ = ["DIALECT", "RAW_LANE"]
