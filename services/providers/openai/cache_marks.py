"""Cache marks: `cache_control` at the ends of prefixes that the provider is asked to cache.

Providers that take them have a form for parts (Alibaba's DashScope), some also for tools and for
the whole request (OpenRouter). A message's mark is sent on its last part. `quirks.cache_control`
says that a channel takes them everywhere, on tool calls too.
"""

from __future__ import annotations

import msgspec

from services.providers.base import Notes, Target
from services.providers.translate.raw_json import raw_object

Json = dict[str, object]

NAME = "cache_control"


class CacheMarks:
    """Adder of one request's marks. A mark that the channel has no form for gets a note."""

    def __init__(self, target: Target, notes: Notes, *, known: bool) -> None:
        quirks = target.channel.quirks
        dropped = NAME in quirks.drops
        self._on_calls = quirks.cache_control and not dropped
        self._sent = (known or quirks.cache_control) and not dropped
        self._notes = notes

    def add(self, made: Json, mark: bytes) -> None:
        """Add a mark to the object that is sent for a part, a tool or the request."""
        if self._sent:
            made[NAME] = raw_object(mark, NAME)
        else:
            self._drop()

    def add_to_message(self, parts: list[Json], calls: list[Json], mark: bytes) -> None:
        """Add a message's mark at its end: to its last tool call, or else to its last part."""
        last = calls[-1:] if self._on_calls and calls else parts[-1:]
        if not self._sent or not last:
            self._drop()
        elif last[0].setdefault(NAME, raw_object(mark, NAME)) != msgspec.Raw(mark):
            self._notes.dropped(NAME, "The end of a message has two marks, of which one is sent.")

    def add_to_call(self, made: Json, mark: bytes) -> None:
        """Add the mark of a tool call."""
        if self._on_calls:
            made[NAME] = raw_object(mark, NAME)
        else:
            self._drop()

    def add_nowhere(self) -> None:
        """Note the mark of a part that is not sent."""
        self._drop()

    def _drop(self) -> None:
        self._notes.dropped(NAME, "The provider decides itself what it caches.")
