"""End of an answer: why it ended, by its last event or its document."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from services.providers.errors_in_answers import error_in_answer
from services.providers.failures import read_error
from services.providers.openai.odd_fields import read
from services.providers.openai_responses import wire
from services.providers.unusable_answers import unreadable

_FAILED = frozenset({"failed", "cancelled", "expired"})
_UNFINISHED = frozenset({"queued", "in_progress"})


class Document(msgspec.Struct, frozen=True):
    """An answer that is one document."""

    found: wire.Response
    raw: Raw


def read_document(body: bytes) -> Document:
    """Read a document, after any white space. Raises UpstreamError if it is no answer."""
    data = Raw(body.strip())
    found = read(data, wire.RESPONSE)
    if found.output is None and found.status is None:
        is_error = bool(read_error(bytes(data)).message)
        raise error_in_answer(bytes(data)) if is_error else unreadable()
    if found.status in _UNFINISHED:
        raise unreadable("The provider has not finished its answer.")
    return Document(found, data)


def native_reason(found: wire.Response, raw: Raw, kind: str = "") -> str:
    """Return why a complete answer ended, in the provider's words. `kind` is that of its event.

    Raises UpstreamError where it says that it failed.
    """
    status = found.status or kind.rpartition(".")[2]
    error = wire.present(found.error)
    if status in _FAILED or kind == "response.failed" or error is not None:
        raise error_in_answer(bytes(error or raw))
    if status == "incomplete":
        details = found.incomplete_details
        return (details and details.reason) or "max_output_tokens"
    return status or "completed"
