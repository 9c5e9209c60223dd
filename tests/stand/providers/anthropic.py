"""Anthropic's Messages API: strict about keys, turns and signed reasoning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import filterfalse
from typing import Any

from tests.stand.providers.answers import Answer, Call, Part, Redacted, Refused, Text, Thought
from tests.stand.upstream import event

Json = dict[str, Any]

KEYS = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "stream", "temperature", "top_p", "top_k"),
        *("stop_sequences", "tools", "tool_choice", "thinking", "output_config", "metadata"),
        *("service_tier", "context_management"),
    }
)
"""The keys of a request. "Extra inputs are not permitted.\""""

STOPS: Mapping[str, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


class Anthropic:
    """Speaks the dialect of the Messages API."""

    def complaint(self, body: Json, given: Sequence[Answer]) -> str:
        """Return the fault of a request that follows these answers. Empty: it has no fault."""
        if unknown := body.keys() - KEYS:
            return f"{min(unknown)}: Extra inputs are not permitted"
        thinking = body.get("thinking", {})
        if thinking.get("budget_tokens", 0) >= body["max_tokens"]:
            return "`max_tokens` must be greater than `thinking.budget_tokens`."
        if thinking.get("type") == "enabled" and body.get("temperature", 1) != 1:
            return "`temperature` may only be set to 1 when thinking is enabled."
        messages = [sent | {"content": _content(sent["content"])} for sent in body["messages"]]
        if any(_is_blank(block) for sent in messages for block in sent["content"]):
            return "messages: text content blocks must contain non-whitespace text"
        return _turns(messages) or _altered(body | {"messages": messages}, given)

    def document(self, answer: Answer, body: Json) -> Json:
        """The answer, whole."""
        return _head(body) | {
            "content": blocks(answer.parts),
            "stop_reason": STOPS[answer.stop],
            "usage": _usage(answer),
            **({"stop_details": _stop_details(answer)} if answer.refusal else {}),
        }

    def events(self, answer: Answer, body: Json) -> Iterator[bytes]:
        """The encoded events of the answer."""
        begun = _head(body) | {"usage": _usage(answer) | {"output_tokens": 1}}
        yield _event("message_start", message=begun)
        yield _event("ping")
        for index, part in enumerate(answer.parts):
            yield _event("content_block_start", index=index, content_block=_begun(part))
            for delta in _deltas(part):
                yield _event("content_block_delta", index=index, delta=delta)
            if not answer.breaks_off or index + 1 < len(answer.parts):
                yield _event("content_block_stop", index=index)
        if answer.breaks_off == "error":
            error = {"type": "overloaded_error", "message": "Overloaded"}
            yield _event("error", error=error)
        if answer.breaks_off:
            return
        ending: Json = {"stop_reason": STOPS[answer.stop], "stop_sequence": None}
        if answer.refusal:
            ending["stop_details"] = _stop_details(answer)
        yield _event("message_delta", delta=ending, usage=_usage(answer))
        yield _event("message_stop")

    def refusal(self, refused: Refused) -> Json:
        """The body of an answer with another status."""
        return {"type": "error", "error": {"type": refused.kind, "message": refused.message}}


def blocks(parts: Sequence[Part]) -> list[Json]:
    """The blocks of an answer, which later requests send back."""
    return [_block(part) for part in parts]


def _block(part: Part) -> Json:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Thought():
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        case Redacted():
            return {"type": "redacted_thinking", "data": part.data}
        case Call():
            arguments = json.loads(part.arguments or "{}")
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}


def _begun(part: Part) -> Json:
    match part:
        case Text():
            return {"type": "text", "text": ""}
        case Thought():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case Redacted():
            return _block(part)
        case Call():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": {}}


def _deltas(part: Part) -> Iterator[Json]:
    match part:
        case Text(pieces):
            yield from ({"type": "text_delta", "text": piece} for piece in pieces)
        case Thought(pieces, signature):
            yield from ({"type": "thinking_delta", "thinking": piece} for piece in pieces)
            yield {"type": "signature_delta", "signature": signature}
        case Call(pieces=pieces):
            yield {"type": "input_json_delta", "partial_json": ""}
            yield from ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)


def _event(name: str, **fields: object) -> bytes:
    return event({"type": name} | fields, name)


def _head(body: Json) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage(answer: Answer) -> Json:
    return {
        "input_tokens": answer.prompt_tokens,
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"thinking_tokens": answer.thinking_tokens},
    }


def _stop_details(answer: Answer) -> Json:
    return {"type": "refusal", "category": "cyber", "explanation": answer.refusal}


def _turns(messages: Sequence[Json]) -> str:
    """Turns alternate, and every call is followed at once by its result.

    Instructions may stand between them, with a beta.
    """
    messages = [sent for sent in messages if sent["role"] != "system"]
    roles = [sent["role"] for sent in messages]
    if roles != [("user", "assistant")[place % 2] for place in range(len(roles))]:
        return "messages: roles must alternate"
    waiting: set[str] = set()
    for sent in messages:
        content = sent["content"]
        results = {block["tool_use_id"] for block in content if block["type"] == "tool_result"}
        if results != waiting:
            return "`tool_use` blocks must have their `tool_result` blocks immediately after"
        waiting = set(_called(content))
    return ""


def _altered(body: Json, given: Sequence[Answer]) -> str:
    """Whether a turn with calls came back changed.

    Its reasoning may only be missing where the model is not going to reason. Blank text,
    which models do write, cannot come back.
    """
    reasons = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
    turns = {call.id: answer.parts for answer in given for call in answer.calls}
    for place, sent in enumerate(body["messages"]):
        parts = next((turns[i] for i in _called(sent["content"]) if i in turns), None)
        if parts is None:
            continue
        open_parts = [part for part in parts if not isinstance(part, Thought | Redacted)]
        allowed = [blocks(parts)] if reasons else [blocks(parts), blocks(open_parts)]
        if sent["content"] not in [list(filterfalse(_is_blank, turn)) for turn in allowed]:
            return f"messages.{place}: `thinking` or `redacted_thinking` blocks were modified"
    return ""


def _content(content: str | Sequence[Json]) -> Sequence[Json]:
    """The blocks of a message, without members that are null."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [
        {name: value for name, value in block.items() if value is not None} for block in content
    ]


def _is_blank(block: Json) -> bool:
    return block["type"] == "text" and not block["text"].strip()


def _called(content: Sequence[Json]) -> list[str]:
    return [block["id"] for block in content if block["type"] == "tool_use"]
