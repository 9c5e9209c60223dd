"""Whether there is room for one more completion. Where there is none it is refused unread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from gateway.errors import ApiError, overloaded
from gateway.overload.connection_limit import come_back_s
from gateway.overload.memory_monitor import MemoryMonitor

Full: TypeAlias = Callable[[str], float | None]
"""How many seconds the caller with this key is to stay away, where there is no room for one more
call of it; None where there is."""


def never(_: str) -> float | None:
    """There is always room."""
    return None


class AdmissionCheck:
    """What calls need: a place at a service, and memory here."""

    def __init__(self, full: Full = never, memory: MemoryMonitor | None = None) -> None:
        """`full` tells of places. Without `memory` there is enough of it."""
        self._full = full
        self._memory = memory

    def refuses_body(self) -> ApiError | None:
        """Why a body had better not come, if so. Its call may find no place all the same."""
        memory = self._memory
        if memory is None or not memory.is_short:
            return None
        memory.refused += 1
        return overloaded(come_back_s())

    def refuses_call(self, caller: str) -> ApiError | None:
        """Why a call of this caller (`gateway.http.credentials.unchecked_key`) is not made, if so.

        Who is told None makes it in this turn of the loop or the next one, if at all.
        """
        wait_s = self._full(caller)
        return self.refuses_body() if wait_s is None else overloaded(wait_s)
