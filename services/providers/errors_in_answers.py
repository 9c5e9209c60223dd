"""Errors that providers report in an answer with status 200."""

from __future__ import annotations

from collections.abc import Collection

from services.errors import UpstreamError
from services.providers.failures import provider_failure, read_error

_NO_FAILURES = frozenset({"", "success", "ok"})
_ONLY_OF_ERRORS = frozenset({"detail", "errors", "error_msg", "base_resp"})


def error_in_answer(error: bytes) -> UpstreamError:
    """Return the error in these bytes."""
    return provider_failure(200, {}, error, own_error=False)


def raise_flat_error(data: bytes, members: Collection[str]) -> None:
    """Raise UpstreamError if an event without an answer is an error that no `error` contains.

    `members` are those that no event of the dialect has. An error has a message with a code or
    status, as DashScope's, or members that only errors have, as FastAPI's, Baidu's and MiniMax's.
    """
    error = read_error(data)
    if error.message.lower() in _NO_FAILURES:
        return
    if error.code or error.status or not _ONLY_OF_ERRORS.isdisjoint(members):
        raise error_in_answer(data)
