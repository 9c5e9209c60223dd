"""Calls that have ended, on their way to an observer, which gets many of them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from services.telemetry.calls import CallRecord

OBSERVED_MAX = 256
"""Most calls that an observer gets together, so that the event loop is not held."""


class EndedCalls(msgspec.Struct, eq=False):
    """Calls for one observer."""

    observe: Callable[[Sequence[CallRecord]], None]
    _waiting: list[CallRecord] = []

    def add(self, record: CallRecord, *, at_once: bool) -> None:
        """Add the call of a complete record, which may change soon if it is delivered `at_once`."""
        self._waiting.append(record)
        if at_once or len(self._waiting) == OBSERVED_MAX:
            self.deliver()

    def deliver(self) -> None:
        """Give the observer the calls of this moment."""
        ended, self._waiting = self._waiting, []
        self.observe(ended)
