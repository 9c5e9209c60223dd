"""Connection limit. Excess clients get 503 with Retry-After; far too many are closed unanswered.

Each connection of a client uses a file descriptor, and each call may use another one, for its
connection to a provider. Without a limit a flood of clients would use all descriptors: then
connections to providers and opening of files fail, which looks like a fault of theirs.
"""

from __future__ import annotations

import resource

from gateway.overload.thresholds import (
    CONNECTION_DESCRIPTORS_SHARE,
    EXCESS_CONNECTIONS_SHARE,
    IDLE_SWEEP_SHARE,
    LOG_INTERVAL_S,
)


def within_descriptors(wanted: int, share: float) -> int:
    """The smaller of `wanted` and that share of the process's file descriptors; at least 1."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, int(descriptors * share)))


class ConnectionLimit:
    """The number of connections of one listener, and its limit."""

    def __init__(self, connections_max: int) -> None:
        self.connections_max = within_descriptors(connections_max, CONNECTION_DESCRIPTORS_SHARE)
        self.open = 0
        """Open connections, including those that are to be refused."""
        self.refused = 0
        """Connections above the limit so far."""
        self._next_log_at = 0.0

    @property
    def over_limit(self) -> bool:
        """Whether the latest connection is above the limit."""
        return self.open > self.connections_max

    @property
    def over_hard_limit(self) -> bool:
        """Whether there are too many connections even for an answer with 503."""
        return self.open > self.connections_max * (1 + EXCESS_CONNECTIONS_SHARE) + 1

    @property
    def idle_share(self) -> float:
        """The part of the idle timeout that holds now: all of it, less near the limit."""
        left = 1 - self.open / self.connections_max
        return min(1.0, max(0.0, left / (1 - IDLE_SWEEP_SHARE)))

    def may_log(self, now: float) -> bool:
        """Return whether the caller may write a line to the log, and count it as written."""
        if now < self._next_log_at:
            return False
        self._next_log_at = now + LOG_INTERVAL_S
        return True
