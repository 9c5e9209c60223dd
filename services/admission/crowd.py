"""How many calls a process runs at a time. What is too much is told so before it costs anything."""

from __future__ import annotations

from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.clock import Chance
from services.errors import Failure

RETRY_AFTER_S = 1.0
SPREAD_S = 2.0
"""Callers are told to come back after the first, and by chance up to the second later."""


class Crowd:
    """Refuses calls while there are as many as the process takes."""

    def __init__(self, calls_max: int, chance: Chance) -> None:
        self.calls_max = calls_max
        self._chance = chance

    def check(self, running: int) -> None:
        """Raises Failure OVERLOADED where `running`, the call itself included, is too many."""
        retry_after_s = self.wait_s(running)
        if retry_after_s is not None:
            raise Failure(
                reasons.ERROR_REASON_OVERLOADED,
                "The service is overloaded. Please try again.",
                retry_after_s=retry_after_s,
            )

    def wait_s(self, running: int) -> float | None:
        """How long to stay away where `running` are too many; None where they are not."""
        if running <= self.calls_max:
            return None
        return RETRY_AFTER_S + SPREAD_S * self._chance.random()
