"""Rendering of answers to raw requests: as they are, or translated where a provider's are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from gateway.errors import ApiError
from gateway.surfaces.base import StreamRenderer
from services.domain.events import Event, Finished, RawContent, Started

RenderFailure: TypeAlias = Callable[[bytes, bytes, ApiError], bytes]
"""Renders the failure of a stream that is passed on, of which it gets the first events, and the
last ones."""


class RawStreamRenderer:
    """Renderer of one stream. See `StreamRenderer`."""

    def __init__(self, translated: Callable[[], StreamRenderer], failed: RenderFailure) -> None:
        """`translated` makes the renderer of a stream that is not passed on as it is."""
        self.started = False
        self.finished = False
        self._make: Callable[[], StreamRenderer] | None = translated
        self._failed = failed
        self._translated: StreamRenderer | None = None
        self._head = self._last = b""
        self._has_failed = False

    def render(self, events: Sequence[Event]) -> bytes:
        """Render the events of one batch."""
        if not self.started:
            first = events[0]
            self.started = True
            if not (isinstance(first, Started) and first.raw_form == "events"):
                self._translated = self._made()
            self._make = None  # It knows the request, which may be large.
        translated = self._translated
        if translated is None:
            return self._as_it_is(events)
        rendered = translated.render(events)
        self.finished = translated.finished
        return rendered

    def error(self, error: ApiError) -> bytes:
        """Render a failure, unless the provider's own was passed on."""
        if self._has_failed:
            return b""
        if self.started and self._translated is None:
            return self._failed(self._head, self._last, error)
        return self._made().error(error)

    def _made(self) -> StreamRenderer:
        if self._translated is None and self._make is not None:
            self._translated = self._make()
        if self._translated is None:
            raise RuntimeError("the stream is passed on as it is")
        return self._translated

    def _as_it_is(self, events: Sequence[Event]) -> bytes:
        passed = b""
        for each in events:
            if type(each) is RawContent:
                passed += each.data
                self._has_failed = each.failed
        if passed:
            self._head, self._last = self._head or passed, passed
        self.finished = type(events[-1]) is Finished
        return passed
