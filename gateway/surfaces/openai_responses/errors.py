"""Failures before anything was sent, with the fields at fault by the names of this API."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.errors import RETRY_AFTER_MAX_S, ApiError
from gateway.http.error_answer import ErrorAnswer
from gateway.surfaces.answer_headers import own_name

NAMES: Mapping[str, str] = {
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
}
"""Names of fields here by those of the contract. Messages are no items: their indexes differ."""


def render_error(error: ApiError) -> ErrorAnswer:
    """Render a failure as `{"error": {"message", "type", "param", "code"}}`."""
    given, message = error.param, error.message
    param = None if given is None else own_name(given, NAMES)
    if param != given:
        message = message.replace(f"`{given}`", f"`{param}`")
    body = {"message": message, "type": error.row.type, "param": param, "code": error.code}
    return ErrorAnswer(error.status, msgspec.json.encode({"error": body}), _headers(error))


def _headers(error: ApiError) -> Mapping[str, str]:
    """Return the headers without a delay that no client should wait for.

    Codex 0.171 does wait, however long it is, as for the next month of a budget.
    """
    headers = error.headers()
    if (error.retry_after_s or 0.0) > RETRY_AFTER_MAX_S:
        return {name: value for name, value in headers.items() if name.lower() not in _DELAYS}
    return headers


_DELAYS = frozenset({"retry-after", "retry-after-ms"})
