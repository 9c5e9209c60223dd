"""Bodies of answers as they arrive: where the content begins, documents, and error bodies."""

from __future__ import annotations

from services.providers.http import HttpError, HttpResponse
from services.providers.timeouts import Timeouts
from services.providers.unusable_answers import OverlongAnswerError, unreadable

ERROR_BODY_MAX = 64 * 1024
"""Bytes of an error response that are read."""
ERROR_BODY_TIMEOUT_S = 5.0
"""How long the body of an error response may take."""
DOCUMENT_MAX = 64 * 1024 * 1024
"""Upper bound, in bytes, of an answer that is one JSON document."""

BLANK = b"\xef\xbb\xbf \t\r\n"
"""Bytes before the content: of a byte order mark, and white space sent as keep-alive."""


async def read_beginning(response: HttpResponse, arrived: bytes) -> bytes:
    """Return the first content. Raises UPSTREAM_BAD_RESPONSE for HTML or an empty body.

    `arrived` is what has been taken.
    """
    while not (data := arrived.lstrip(BLANK)):
        if not arrived:
            raise unreadable()
        arrived = await response.read()
    if data.startswith(b"<"):
        raise unreadable()
    return data


async def read_document(response: HttpResponse, beginning: bytes, timeouts: Timeouts) -> bytes:
    """Read the whole body. Every piece that is not blank counts as progress."""
    if not response.complete:
        timeouts.progressed()
    pieces = [beginning]
    size = len(beginning)
    while data := await response.read():
        size += len(data)
        if size > DOCUMENT_MAX:
            raise OverlongAnswerError
        pieces.append(data)
        if data.strip(BLANK):
            timeouts.progressed()
    return b"".join(pieces)


async def read_error_body(response: HttpResponse, timeouts: Timeouts) -> bytes:
    """Read the body of an error response as far as it arrives in time."""
    timeouts.shorten(ERROR_BODY_TIMEOUT_S)
    body = b""
    try:
        while len(body) < ERROR_BODY_MAX and (data := await response.read()):
            body += data
    except HttpError:
        pass
    return body[:ERROR_BODY_MAX]
