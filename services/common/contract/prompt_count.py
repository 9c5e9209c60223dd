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

read_count_request = _REQUEST.read
to_count_request_message = _REQUEST.to_message
read_count = _COUNT.read
to_count_message = _COUNT.to_message
