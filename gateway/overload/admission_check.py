"""Admission check: whether the edge may start one more call. Refusals cost no read of the body."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from gateway.errors import ApiError
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.overload.refusals import random_retry_after_s, refused_call

CallLimit: TypeAlias = Callable[[str], float | None]
"""A limit of calls in flight. For the key of a caller it returns the seconds to wait before a
retry, or None where one more call of that caller is within the limit."""


def no_limit(_: str) -> float | None:
    """The limit that no call exceeds."""
    return None


class AdmissionCheck:
    """Decides by the capacity of the service and by the memory of this process."""

    def __init__(
        self, call_limit: CallLimit = no_limit, memory: MemoryMonitor | None = None
    ) -> None:
        """Without `memory`, memory is never short."""
        self._call_limit = call_limit
        self._memory = memory

    def admit(self, caller: str) -> ApiError | None:
        """Return the refusal, or None when the call may start in this loop turn or the next one.

        `caller` is the key as it was sent (`gateway.http.credentials.unchecked_key`).
        """
        retry_after_s = self._call_limit(caller)
        if retry_after_s is not None:
            return refused_call(retry_after_s)
        return None if self._memory is None else self.admit_body()

    def admit_body(self) -> ApiError | None:
        """Return the refusal of a body that has not arrived yet, or None when it may be read.

        Only memory counts here: `admit` decides about the call once its body has arrived.
        """
        memory = self._memory
        if memory is None or not memory.is_short:
            return None
        memory.refused += 1
        return refused_call(random_retry_after_s())
