"""Answers of servers that have chat completions, and no Responses."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_STATUSES = frozenset({405, 501})
_NOT_FOUND = 404

_NO_SUCH_PATH = re.compile(
    r"(404:? )?((the )?(requested )?(page|file|route|endpoint|path|url|resource) )?"
    r"(was )?not found( on this server)?\.?"
    r"|(cannot post|invalid url|no route|unexpected endpoint|unknown (url|path|endpoint)).*",
    re.IGNORECASE | re.DOTALL,
)
"""Words for a path that a server does not have, unlike a model, an item or a file."""


def lacks_responses(status: int, body: bytes) -> bool:
    """Return whether an error says that the server has no such API."""
    if status in _STATUSES:
        return True
    if status != _NOT_FOUND:
        return False
    try:
        document: Any = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return True  # A page of a web server.
    error = document.get("error", document) if isinstance(document, dict) else document
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail")
    return not isinstance(error, str) or _NO_SUCH_PATH.fullmatch(error.strip()) is not None
