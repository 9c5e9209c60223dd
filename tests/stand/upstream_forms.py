"""One answer in the form of every dialect, and what callers read of it through every API."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.faults import dialect_answers
from tests.faults.fault_stand import TEXT as ANSWER_TEXT
from tests.stand.upstream import SSE_HEAD

EMBEDDING, COUNT = "embed", "count"
TEXT = ANSWER_TEXT
PIECES = ("canary-answer-", "31d0")
"""The texts of the events of a stream."""
VECTORS = [[0.5, -0.25], [1.0, 0.125]]


@dataclass(frozen=True, slots=True)
class Form:
    """The bodies of an answer."""

    document: bytes
    stream: bytes


def _joined(chunked: bytes) -> bytes:
    """The body of a chunked one."""
    body = b""
    rest = chunked.removeprefix(SSE_HEAD)
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    return body


FORMS: Mapping[str, Form] = {
    form.dialect: Form(json.dumps(form.whole).encode(), _joined(form.begin + form.rest))
    for form in dialect_answers.FORMS
} | {
    EMBEDDING: Form(
        json.dumps(
            {
                "object": "list",
                "model": "m",
                "data": [
                    {"object": "embedding", "index": index, "embedding": vector}
                    for index, vector in enumerate(VECTORS)
                ],
                "usage": {"prompt_tokens": 2, "total_tokens": 2},
            }
        ).encode(),
        b"",
    ),
    COUNT: Form(b'{"object": "response.input_tokens", "input_tokens": 9}', b""),
}
DIALECTS = tuple(form.dialect for form in dialect_answers.FORMS)


class Said(NamedTuple):
    """Answer as a caller reads it."""

    end: str
    """`whole`, or the code or type of an error. `unreadable`: no client reads it. `endless`: it
    is a stream that tells of no end."""
    text: str


def said(path: str, status: int, content: bytes, *, streamed: bool) -> Said:
    """Read an answer of one of the APIs."""
    try:
        if status != 200 or not streamed:
            document = json.loads(content)
            if status != 200:
                return Said(_error_of(document), "")
            return Said(*_READERS[path](document))
        return _read_stream(path, content.decode())
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return Said("unreadable", "")


def _error_of(document: Any) -> str:
    error = document["error"]
    return str(error.get("code") or error["type"])


def _chat(document: Any) -> tuple[str, str]:
    return "whole", document["choices"][0]["message"]["content"] or ""


def _completion(document: Any) -> tuple[str, str]:
    return "whole", document["choices"][0]["text"]


def _message(document: Any) -> tuple[str, str]:
    return "whole", "".join(each.get("text", "") for each in document["content"])


def _response(document: Any) -> tuple[str, str]:
    parts = [part for item in document["output"] for part in item.get("content", ())]
    end = "whole" if document["status"] == "completed" else document["status"]
    return end, "".join(part.get("text", "") for part in parts)


def _embeddings(document: Any) -> tuple[str, str]:
    vectors = [each["embedding"] for each in document["data"]]
    return "whole", TEXT if vectors == VECTORS else f"{vectors}"


def _count(document: Any) -> tuple[str, str]:
    return "whole", TEXT if document["input_tokens"] > 0 else ""


_READERS = {
    "/messages/count_tokens": _count,
    "/responses/input_tokens": _count,
    "/chat/completions": _chat,
    "/completions": _completion,
    "/messages": _message,
    "/responses": _response,
    "/embeddings": _embeddings,
}


def _read_stream(path: str, text: str) -> Said:
    """Read a stream of events, which an error may end. Without an end it is `endless`."""
    found, end, is_readable = "", "", True
    for block in re.split(r"\r\n\r\n|\n\n|\r\r", text):
        data = "\n".join(
            line[5:].lstrip(" ") for line in block.splitlines() if line.startswith("data:")
        )
        if not data:
            continue
        if data == "[DONE]":
            end = end or "whole"
            continue
        try:
            event = json.loads(data)
        except ValueError:
            is_readable = False
            continue
        kind = event.get("type", "")
        if event.get("error") or kind == "error":
            end = _error_of(event) if "error" in event else event.get("code", "error")
        elif kind == "response.failed":
            end = event["response"]["error"]["code"]
        elif kind in {"message_stop", "response.completed", "response.incomplete"}:
            end = end or "whole"
        found += _delta(kind, event)
    if end == "whole" and not is_readable:
        end = "unreadable"
    return Said(end or "endless", found)


def _delta(kind: str, event: Any) -> str:
    if kind == "content_block_delta":
        return str(event["delta"].get("text", ""))
    if kind == "response.output_text.delta":
        return str(event["delta"])
    choices = event.get("choices") or ()
    return "".join(
        each.get("text") or (each.get("delta") or {}).get("content") or "" for each in choices
    )
