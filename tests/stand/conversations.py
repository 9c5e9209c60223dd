"""Conversations with much text, or media, at one of the places that a request has for them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

LONG = "word and " * 3_000
"""Some 7,000 tokens."""

Fields = Mapping[str, Any]
"""Fields of a request."""


def after(answer: Fields) -> Fields:
    """A conversation that goes on after an answer."""
    user = {"role": "user", "content": "Go on"}
    return {"messages": [user, {"role": "assistant", "content": "I", **answer}, user]}


def part(**fields: Any) -> Fields:
    """A conversation of one part."""
    return {"messages": [{"role": "user", "content": [fields]}]}


def text_file(text: str) -> Fields:
    """A conversation of one text file."""
    data = base64.b64encode(text.encode()).decode()
    file = {"filename": "a.txt", "file_data": f"data:text/plain;base64,{data}"}
    return part(type="file", file=file)


def details(**item: Any) -> Fields:
    """A conversation with OpenRouter's form of reasoning."""
    return after({"reasoning_details": [item]})


CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
