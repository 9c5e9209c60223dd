"""How many clients the edge has at a time. Who is one too many is told to come back.

Each takes a descriptor, and each call another one, to its provider. Without a bound a flood of
clients would take them all, and then providers cannot be reached and files cannot be opened:
faults of ours that look like others'.
"""

from __future__ import annotations

import random
import resource

from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import ApiError

SHARE = 0.4
"""Of the process's descriptors, what clients may have. As many go to providers."""

TURNED_AWAY = 0.25
"""How many more, for one that is served, may be there to hear that it is not."""

RETRY_AFTER_S = 1.0
SPREAD_S = 2.0
"""Callers are told to come back after the first, and by chance up to the second later."""

COMPLAINT_S = 1.0
"""How often the log may tell of it."""


def within_descriptors(most: int, share: float) -> int:
    """At most so many, within that share of the process's descriptors; one at least."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return most
    return max(1, min(most, int(descriptors * share)))


class ConnectionLimit:
    """The clients of one listener."""

    def __init__(self, clients_max: int) -> None:
        self.clients_max = within_descriptors(clients_max, SHARE)
        self.size = 0
        """How many are there, those that are told to come back among them."""
        self.refused = 0
        """How many were too many, so far."""
        self._silent_until = 0.0

    @property
    def is_large(self) -> bool:
        """Whether the last to come is one too many."""
        return self.size > self.clients_max

    @property
    def is_huge(self) -> bool:
        """Whether there are too many even to be told so."""
        return self.size > self.clients_max * (1 + TURNED_AWAY) + 1

    def complains(self, now: float) -> bool:
        """Whether it is time for a line in the log. It is asked because it will be written."""
        if now < self._silent_until:
            return False
        self._silent_until = now + COMPLAINT_S
        return True


def come_back_s() -> float:
    """How long to stay away, in seconds. Who is refused at once does not return at once."""
    return RETRY_AFTER_S + SPREAD_S * random.random()  # noqa: S311 - nobody's secret


def refusal() -> ApiError:
    """What a client is told that is one too many."""
    return ApiError(
        reasons.ERROR_REASON_OVERLOADED,
        "There are too many connections. Please try again.",
        retry_after_s=come_back_s(),
    )
