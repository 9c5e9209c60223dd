"""Prompts as a provider counts them that bills as dearly as it may."""

from __future__ import annotations

import json
from typing import Any

BYTES_PER_TOKEN = 4
TOOL_TOKENS = 12
"""Tokens around a tool."""
IMAGE_TOKENS, DOCUMENT_TOKENS = 16_384, 1_000_000


def prompt_tokens(body: Any) -> int:
    """Return the tokens of a request's prompt: all of its text, and media by their most."""
    texts = [json.dumps(body.get(name, "")) for name in ("messages", "response_format")]
    tools = [json.dumps(tool) for tool in body.get("tools", ())]
    # Short tools are little else than their frame.
    tokens: int = sum(
        max(TOOL_TOKENS, len(tool) // BYTES_PER_TOKEN - TOOL_TOKENS) for tool in tools
    )
    tokens += sum(len(text) // BYTES_PER_TOKEN for text in texts)
    contents = [sent["content"] for sent in body["messages"] if sent.get("content")]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    tokens += IMAGE_TOKENS * sum(part["type"] == "image_url" for part in parts)
    return tokens + DOCUMENT_TOKENS * sum(map(_is_document, parts))


def _is_document(part: Any) -> bool:
    if part["type"] == "video_url":
        return True
    data = str(part["file"].get("file_data", "")) if part["type"] == "file" else "data:"
    return not data.startswith("data:")
