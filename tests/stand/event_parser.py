"""Parser of a body into server-sent events, one by one."""

from __future__ import annotations

from services.providers.base import SseEvent
from services.providers.sse_parser import SseParser, event_of


class EventParser(SseParser, eq=False, kw_only=True):
    """Parser of the body of one answer, as it arrives, into its events."""

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the events that `data` completes, in order."""
        return [event for block in self.split(data) if (event := event_of(block)) is not None]

    def close(self) -> list[SseEvent]:
        """End the body. Return the event without its blank line, if its data is complete."""
        return [event for block in self.rest() if (event := event_of(block)) is not None]
