"""Body budget: the memory that requests with large bodies may take at a time.

The monitor of memory (`gateway.overload.memory_monitor`) looks four times a second, and 48 clients
send a gigabyte in less. So each piece of a body is counted when it arrives, at what it really
costs, until its request has ended. A piece beyond the budget is refused with 503.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from gateway.errors import ApiError
from gateway.overload.cgroup import ContainerMemory
from gateway.overload.refusals import random_retry_after_s, refused_call
from gateway.overload.thresholds import (
    BODY_COST_ARRIVING,
    BODY_COST_DECODED,
    BODY_MEMORY_SHARE,
    LOG_INTERVAL_S,
)
from services.common.memory_budget import MemoryBudget

_log = logging.getLogger("gateway")


def body_memory_max() -> int:
    """The budget where none is configured: a share of the memory of container or machine."""
    limit = ContainerMemory().limit_bytes()
    if limit is None:
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(limit * BODY_MEMORY_SHARE)


class BodyBudget(MemoryBudget):
    """The memory of all bodies of this process that are counted."""

    def __init__(self, bytes_max: int = 0, now: Callable[[], float] = time.monotonic) -> None:
        """`bytes_max` is of memory, not of bodies; 0: `body_memory_max()`."""
        super().__init__(bytes_max or body_memory_max())
        self.refused = 0
        """Bodies that were refused so far."""
        self._now = now
        self._next_log_at = 0.0

    def open(self, key: str) -> BodyMemory:
        """Return the memory of one body. All keys that are not known share the key ""."""
        return BodyMemory(self, key)

    def refuse(self) -> ApiError:
        """Return the refusal of a body, and count it."""
        self.refused += 1
        now = self._now()
        if now >= self._next_log_at:
            self._next_log_at = now + LOG_INTERVAL_S
            _log.warning("body_budget.exceeded", extra={"held_bytes": self.held_bytes})
        return refused_call(random_retry_after_s())


class BodyMemory:
    """The memory of one body, from its first piece to the end of its request."""

    __slots__ = ("_budget", "_counted", "_key", "_size")

    def __init__(self, budget: BodyBudget, key: str) -> None:
        self._budget = budget
        self._key = key
        self._size = 0
        self._counted = 0

    def add(self, size: int) -> ApiError | None:
        """Count a piece of `size` bytes that has arrived. Return the refusal if it is too much.

        A refused body counts no more, so that others that arrive at the same time are read.
        """
        cost = size * BODY_COST_ARRIVING
        if not self._budget.take(self._key, cost):
            self.release()
            return self._budget.refuse()
        self._size += size
        self._counted += cost
        return None

    def shrink(self) -> None:
        """Count less: the body is decoded, and its bytes are dropped."""
        spare = self._counted - self._size * BODY_COST_DECODED
        self._give_back(spare)

    def release(self) -> None:
        """Count nothing any more: the request has ended. May be called twice."""
        self._give_back(self._counted)

    def _give_back(self, size: int) -> None:
        if size > 0:
            self._counted -= size
            self._budget.give_back(self._key, size)
