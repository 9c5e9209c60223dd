"""Rendering of answers to raw requests: as they are, or translated where a provider's are."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.errors import ApiError
from gateway.surfaces.base import StreamRenderer
from services.domain.events import Event, Finished, RawContent, Started


class RawStreamRenderer:
    """Renderer of one stream. See `StreamRenderer`."""

    def __init__(self, translated: StreamRenderer) -> None:
        """`translated` renders a stream that is not passed on as it is."""
        self.started = False
        self.finished = False
        self._translated = translated
        self._is_raw = False
        self._has_failed = False

    def render(self, events: Sequence[Event]) -> bytes:
        """Render the events of one batch."""
        if not self.started:
            first = events[0]
            self.started = True
            self._is_raw = isinstance(first, Started) and first.raw_form == "events"
        if self._is_raw:
            return self._as_it_is(events)
        rendered = self._translated.render(events)
        self.finished = self._translated.finished
        return rendered

    def error(self, error: ApiError) -> bytes:
        """Render a failure, unless the provider's own was passed on."""
        return b"" if self._has_failed else self._translated.error(error)

    def _as_it_is(self, events: Sequence[Event]) -> bytes:
        passed = b""
        for each in events:
            if type(each) is RawContent:
                passed += each.data
                self._has_failed = each.failed
        self.finished = type(events[-1]) is Finished
        return passed
