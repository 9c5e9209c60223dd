"""OpenAI's Responses API: strict about keys, items and the reasoning before them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.stand.providers.answers import Answer, Call, Part, Redacted, Refused, Text, Thought
from tests.stand.upstream import event

Json = dict[str, Any]

KEYS = frozenset(
    {
        *("model", "input", "instructions", "stream", "max_output_tokens", "temperature", "top_p"),
        *("tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "include", "store"),
        *("top_logprobs", "metadata", "service_tier", "safety_identifier", "user", "truncation"),
        *("prompt_cache_key", "max_tool_calls", "client_metadata"),
    }
)
"""The keys of a request. Any other is refused."""

ITEMS: Mapping[str, frozenset[str]] = {
    "message": frozenset({"role", "content", "id", "phase", "status"}),
    "reasoning": frozenset({"id", "summary", "content", "encrypted_content", "status"}),
    "function_call": frozenset({"id", "call_id", "name", "arguments", "namespace", "status"}),
    "function_call_output": frozenset({"call_id", "output", "id", "status"}),
    "custom_tool_call": frozenset({"id", "call_id", "name", "input", "namespace", "status"}),
    "custom_tool_call_output": frozenset({"call_id", "output", "id", "status"}),
    "web_search_call": frozenset({"id", "status", "action"}),
}
"""Members of items by their types, besides the type. Any other is refused."""

ECHO: Json = {
    "background": False,
    "completed_at": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "auto",
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""Defaults of the members of a request that a response repeats."""

STATUSES: Mapping[str, Json] = {
    "length": {"reason": "max_output_tokens"},
    "content_filter": {"reason": "content_filter"},
}
"""Details of incomplete answers by their ends."""


class OpenAiResponses:
    """Speaks the dialect of Responses."""

    def complaint(self, body: Json, given: Sequence[Answer]) -> str:
        """Return the fault of a request that follows these answers. Empty: it has no fault."""
        if unknown := body.keys() - KEYS:
            return f"Unknown parameter: '{min(unknown)}'."
        if body.get("store") is not False:
            return "Answers of this organization are not stored."
        if body.get("max_output_tokens", 16) < 16:
            return "Invalid 'max_output_tokens': integer below minimum value."
        given_items = [_typed(item) for item in _items_of(body["input"])]
        for place, item in enumerate(given_items):
            known = ITEMS.get(item["type"])
            if known is None or item.keys() - known - {"type"}:
                return f"Invalid value: 'input[{place}]'."
        body = body | {"input": given_items}
        return _unanswered(given_items) or _without_item(given_items) or _altered(body, given)

    def document(self, answer: Answer, body: Json) -> Json:
        """The answer, whole."""
        is_incomplete = answer.stop in STATUSES
        return _head(body) | {
            "status": "incomplete" if is_incomplete else "completed",
            "incomplete_details": STATUSES.get(answer.stop),
            "output": items(answer, body),
            "usage": {
                "input_tokens": answer.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": answer.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": answer.thinking_tokens},
                "total_tokens": answer.prompt_tokens + answer.completion_tokens,
            },
        }

    def events(self, answer: Answer, body: Json) -> Iterator[bytes]:
        """The encoded events of the answer."""
        for number, found in enumerate(self._events(answer, body)):
            yield event(found | {"sequence_number": number}, found["type"])

    def refusal(self, refused: Refused) -> Json:
        """The body of an answer with another status."""
        error = {"message": refused.message, "type": refused.kind, "param": None, "code": None}
        return {"error": error}

    def _events(self, answer: Answer, body: Json) -> Iterator[Json]:
        head = _head(body)
        yield {"type": "response.created", "response": head}
        yield {"type": "response.in_progress", "response": head}
        whole = items(answer, body)
        for index, (item, part) in enumerate(zip(whole, _parts(answer), strict=True)):
            begun = item | {"status": "in_progress", "content": [], "arguments": "", "summary": []}
            begun = {name: value for name, value in begun.items() if name in item}
            yield _of("output_item.added", index, item=begun)
            yield from _content(item, part, index, is_cut=bool(answer.breaks_off))
            if answer.breaks_off and index == len(whole) - 1:
                break
            yield _of("output_item.done", index, item=item)
        if answer.breaks_off == "error":
            yield {"type": "error", "code": "server_error", "message": "The model failed."}
        if not answer.breaks_off:
            response = self.document(answer, body)
            yield {"type": f"response.{response['status']}", "response": response}


def items(answer: Answer, body: Json) -> list[Json]:
    """The items of an answer, which later requests send back."""
    found: list[Json] = []
    for number, part in enumerate(_parts(answer)):
        match part:
            case Thought():
                summary = [{"type": "summary_text", "text": part.text}]
                found.append(_reasoning(part.signature, number, summary))
            case Redacted():
                found.append(_reasoning(part.data, number, []))
            case Text():
                found.append(_message(part, number, body))
            case Call():
                call = {"call_id": part.id, "name": part.name, "arguments": part.arguments}
                item = {"type": "function_call", "id": f"fc_{part.id}", "status": "completed"}
                found.append(item | call)
            case str():
                refusal = {"type": "refusal", "refusal": part}
                found.append(_message_of([refusal], number))
    return found


def _parts(answer: Answer) -> list[Part | str]:
    """The parts, and the text of a refusal."""
    return [*answer.parts, *([answer.refusal] if answer.refusal else [])]


def _reasoning(sealed: str, number: int, summary: list[Json]) -> Json:
    item = {"type": "reasoning", "id": f"rs_{number}", "summary": summary}
    return item | {"encrypted_content": sealed}


def _message(part: Text, number: int, body: Json) -> Json:
    text: Json = {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}
    if "message.output_text.logprobs" in body.get("include", ()):
        text["logprobs"] = [_token(part.text)]
    return _message_of([text], number)


def _message_of(content: list[Json], number: int) -> Json:
    item = {"type": "message", "id": f"msg_{number}", "status": "completed", "role": "assistant"}
    return item | {"content": content}


def _token(text: str) -> Json:
    return {"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": []}


def _content(item: Json, part: Part | str, index: int, *, is_cut: bool) -> Iterator[Json]:
    """The events of an item's content, without its end where the answer is cut."""
    here = {"item_id": item["id"]}
    match part:
        case Thought(pieces):
            begun = {"type": "summary_text", "text": ""}
            place = here | {"summary_index": 0}
            family, name = "reasoning_summary_part", "reasoning_summary_text"
            whole = item["summary"][0]
        case Text(pieces):
            begun = item["content"][0] | {"text": "", "logprobs": []}
            place = here | {"content_index": 0}
            family, name = "content_part", "output_text"
            whole = item["content"][0]
        case Call(pieces=pieces):
            for piece in pieces:
                yield _of("function_call_arguments.delta", index, **here, delta=piece)
            if not is_cut:
                told = {"name": item["name"], "arguments": item["arguments"]}
                yield _of("function_call_arguments.done", index, **here, **told)
            return
        case str():
            begun = {"type": "refusal", "refusal": ""}
            place, pieces = here | {"content_index": 0}, (part,)
            family, name = "content_part", "refusal"
            whole = item["content"][0]
        case _:
            return
    yield _of(f"{family}.added", index, **place, part=begun)
    for number, piece in enumerate(pieces):
        more: Json = {"delta": piece}
        if name == "output_text":
            more["logprobs"] = whole["logprobs"] if number == len(pieces) - 1 else []
        yield _of(f"{name}.delta", index, **place, **more)
    if not is_cut:
        told = {key: each for key, each in whole.items() if key in ("text", "refusal", "logprobs")}
        yield _of(f"{name}.done", index, **place, **told)
        yield _of(f"{family}.done", index, **place, part=whole)


def _of(kind: str, index: int, **fields: Any) -> Json:
    return {"type": f"response.{kind}", "output_index": index, **fields}


def _head(body: Json) -> Json:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": body["model"],
        "output": [],
        "usage": None,
        "store": False,
        **ECHO,
        **{name: body[name] for name in ECHO if name in body},
        "text": {**ECHO["text"], **body.get("text", {})},
        "reasoning": {**ECHO["reasoning"], **body.get("reasoning", {})},
    }


def _items_of(given: str | list[Json]) -> list[Json]:
    """The items of the field `input`, which may be a text."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


def _typed(item: Json) -> Json:
    """An item with its type, which messages may lack, and its content as parts."""
    item = {"type": "message", **item}
    if isinstance(item.get("content"), str):
        item["content"] = [{"type": "input_text", "text": item["content"]}]
    return item


def _unanswered(given: Sequence[Json]) -> str:
    """Every call has its result, and every result its call before it."""
    waiting: set[str] = set()
    for item in given:
        if item["type"] in ("function_call", "custom_tool_call"):
            waiting.add(item["call_id"])
        if item["type"].endswith("_output"):
            if item["call_id"] not in waiting:
                return (
                    f"No tool call found for function call output with call_id {item['call_id']}."
                )
            waiting.discard(item["call_id"])
    return f"No tool output found for function call {min(waiting)}." if waiting else ""


def _without_item(given: Sequence[Json]) -> str:
    """Reasoning is followed by what it led to."""
    for item, following in zip(given, [*given[1:], {"role": "user"}], strict=True):
        is_last = following.get("role") in ("user", "developer", "system")
        if item["type"] == "reasoning" and is_last:
            return (
                f"Item '{item['id']}' of type 'reasoning' was provided without its required item."
            )
    return ""


def _altered(body: Json, given: Sequence[Answer]) -> str:
    """Whether a turn with calls came back changed. Without reasoning, its own may be missing."""
    reasons = body.get("reasoning", {}).get("effort", "none") != "none"
    for answer in given:
        whole = items(answer, body)
        first = next((at for at, item in enumerate(whole) if "call_id" in item), None)
        calls = {call.id for call in answer.calls}
        at = next(
            (at for at, item in enumerate(body["input"]) if item.get("call_id") in calls), None
        )
        if first is None or at is None:
            continue
        open_items = [item for item in whole if item["type"] != "reasoning"]
        turn = body["input"][at - first : at - first + len(whole)]
        if list(map(_meaning, turn)) == list(map(_meaning, whole)):
            continue
        begin = at - next(at for at, item in enumerate(open_items) if "call_id" in item)
        bare = body["input"][begin : begin + len(open_items)]
        has_ids = any("id" in item for item in bare)
        if (reasons and has_ids) or list(map(_meaning, bare)) != list(map(_meaning, open_items)):
            return "Reasoning was provided without its required following item."
    return ""


def _meaning(item: Json) -> object:
    """The meaning of an item: some clients write arguments in another form."""
    if item["type"] == "function_call":
        return item["call_id"], item["name"], json.loads(item["arguments"] or "{}")
    if item["type"] == "reasoning":
        return item["id"], item["encrypted_content"], json.dumps(item["summary"])
    return [part.get("text") for part in item.get("content", ())]
