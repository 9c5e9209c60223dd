"""Gemini's answer with a tool call, whose signature it wants back, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.stand.upstream import Request, json_answer
from tests.stand.upstream import stream as events_of

SIGNED_CALL: Mapping[str, Any] = {
    "index": 0,
    "id": "call-1",
    "type": "function",
    "function": {"name": "clock", "arguments": "{}"},
    "extra_content": {"google": {"thought_signature": "c2lnbmVk"}},
}


def answer_with_signed_call(request: Request) -> list[bytes]:
    """Answer with the call, whole or streamed."""
    end = {"index": 0, "finish_reason": "tool_calls"}
    message = {"tool_calls": [SIGNED_CALL]}
    if request.json()["stream"]:
        chunks: list[dict[str, Any]] = [{"index": 0, "delta": message}, {"delta": {}} | end]
        return [events_of({"choices": [choice]} for choice in chunks)]
    return [json_answer({"choices": [{"message": message} | end]})]
