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
    """Calls for one observer. The call log delivers them when they are `OBSERVED_MAX`."""

    observe: Callable[[Sequence[CallRecord]], None]
    waiting: list[CallRecord] = []

    def deliver(self) -> None:
        """Give the observer the calls of this moment."""
        ended, self.waiting = self.waiting, []
        self.observe(ended)
