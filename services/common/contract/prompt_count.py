"""Requests to count the tokens of a prompt, and their answers, as messages."""

from __future__ import annotations

from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.common.contract.chat import NOTE, RAW, SPEC
from services.common.contract.message_table import MessageTable
from services.domain.prompt_count import PromptCount, PromptCountRequest

_REQUEST = MessageTable(
    PromptCountRequest,
    pb.CountPromptTokensRequest,
    {"spec": SPEC.translation, "raw": RAW.translation},
)
_COUNT = MessageTable(PromptCount, pb.CountPromptTokensResponse, {"notes": NOTE.translation})


def read_count_request(message: pb.CountPromptTokensRequest) -> PromptCountRequest:
    """Return the request. Raises UntranslatableError."""
    return _REQUEST.read(message)


def to_count_request_message(request: PromptCountRequest) -> pb.CountPromptTokensRequest:
    """Return the request as a message."""
    message = pb.CountPromptTokensRequest()
    _REQUEST.fill(request, message)
    return message


def read_count(message: pb.CountPromptTokensResponse) -> PromptCount:
    """Return the answer."""
    return _COUNT.read(message)


def to_count_message(count: PromptCount) -> pb.CountPromptTokensResponse:
    """Return the answer as a message."""
    message = pb.CountPromptTokensResponse()
    _COUNT.fill(count, message)
    return message
