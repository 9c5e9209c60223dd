"""Decoder of answers that are never streams: it keeps the document, to be read off the loop."""

from __future__ import annotations

from typing import NoReturn

from services.domain.completion import WholeAnswer
from services.domain.events import Event
from services.domain.usage import Usage
from services.errors import UpstreamError
from services.providers.base import SseEvent
from services.providers.errors_in_answers import error_in_answer
from services.providers.failures import read_error
from services.providers.unusable_answers import unreadable


class DocumentDecoder:
    """Decoder of one answer. See `services.providers.base.Decoder`."""

    def __init__(self) -> None:
        self.body = b""
        """The answer."""
        self.done = False
        self.usage: Usage | None = None

    def feed(self, event: SseEvent) -> list[Event]:
        """Raise the error that an event reports, or UPSTREAM_BAD_RESPONSE."""
        raise failure_in(event.data)

    def finish(self) -> NoReturn:
        """Raise UPSTREAM_BAD_RESPONSE."""
        raise unreadable()

    def whole(self, body: bytes) -> WholeAnswer:
        """Keep a body."""
        self.body = body
        return WholeAnswer(choices=[])


def failure_in(body: bytes) -> UpstreamError:
    """Return the failure of a document of another form: the error in it, if it has one."""
    return error_in_answer(body) if read_error(body).message else unreadable()
