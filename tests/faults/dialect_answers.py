"""The same answers, pings and errors in the form of every dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.faults import fault_stand
from tests.faults.fault_stand import piece
from tests.stand.upstream import LAST_CHUNK, SSE_HEAD, Request, Script, chunk, event, json_answer

BUSY = "Overloaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectAnswers:
    """Bytes of one answer in a dialect."""

    dialect: str
    begin: bytes
    """The head of a stream and the first piece of text."""
    rest: bytes
    """The remaining events of the answer."""
    whole: Any
    """The answer as a document."""
    ping: bytes
    """A ping without content."""
    trouble: bytes
    """An error within a stream."""
    error: Any
    """The body of a refusal."""

    @property
    def end(self) -> bytes:
        """The remaining events and the last chunk."""
        return self.rest + LAST_CHUNK

    @property
    def document(self) -> bytes:
        """The whole answer, with its head."""
        return json_answer(self.whole)

    def fitting(self, request: Request) -> Script:
        """The answer as a stream or a document, as requested."""
        return [self.begin + self.end if request.json().get("stream") else self.document]


def _named(*events: dict[str, Any]) -> bytes:
    """Events named after their type, each a chunk of its own."""
    return b"".join(chunk(event(each, each["type"])) for each in events)


def _text(text: str) -> dict[str, Any]:
    delta = {"type": "text_delta", "text": text}
    return {"type": "content_block_delta", "index": 0, "delta": delta}


_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
_FAILURE = {"type": "error", "error": {"type": "overloaded_error", "message": BUSY}}

ANTHROPIC = DialectAnswers(
    dialect="anthropic",
    begin=SSE_HEAD
    + _named(
        {
            "type": "message_start",
            "message": {
                **_MESSAGE,
                "content": [],
                "usage": {"input_tokens": 10, "output_tokens": 1},
            },
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        _text("canary-answer-"),
    ),
    rest=_named(
        _text("31d0"),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ),
    whole={
        **_MESSAGE,
        "content": [{"type": "text", "text": fault_stand.TEXT}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    },
    ping=_named({"type": "ping"}),
    trouble=_named(_FAILURE),
    error=_FAILURE,
)


def _of_openai(dialect: str, ping: bytes, trouble: dict[str, Any]) -> DialectAnswers:
    return DialectAnswers(
        dialect=dialect,
        begin=fault_stand.BEGIN,
        rest=fault_stand.REST,
        whole=fault_stand.ANSWER,
        ping=chunk(ping),
        trouble=chunk(event(trouble)),
        error={"error": {"message": BUSY, "code": 503}},
    )


OPENAI = _of_openai("openai", event(piece("")), {"error": {"message": BUSY, "code": 503}})
OPENROUTER = _of_openai(
    "openrouter",
    b": OPENROUTER PROCESSING\n\n",
    {
        "id": "c",
        "error": {"message": BUSY, "code": 503},
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
    },
)


def _delta(text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": 0, "delta": text}


_ITEM = {"type": "message", "content": [{"type": "output_text", "text": fault_stand.TEXT}]}
_RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [_ITEM],
    "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
}

RESPONSES = DialectAnswers(
    dialect="openai-responses",
    begin=SSE_HEAD
    + _named(
        {
            "type": "response.created",
            "response": {**_RESPONSE, "status": "in_progress", "output": [], "usage": None},
        },
        _delta("canary-answer-"),
    ),
    rest=_named(_delta("31d0"), {"type": "response.completed", "response": _RESPONSE}),
    whole=_RESPONSE,
    ping=_named({"type": "response.in_progress", "response": {"status": "in_progress"}}),
    trouble=_named({"type": "error", "code": "server_overloaded", "message": BUSY}),
    error={"error": {"message": BUSY, "code": "server_overloaded"}},
)

FORMS = (OPENAI, RESPONSES, OPENROUTER, ANTHROPIC)
