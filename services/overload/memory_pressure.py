"""The memory of the process, as `gateway.overload.memory_monitor` measures it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPressure:
    """Readings of the memory in use. Without any there is no limit."""

    used_share: Callable[[], float] = lambda: 0.0
    """The share of the memory limit that is in use, from 0 to 1; 0 without a limit."""
    is_short: Callable[[], bool] = lambda: False
    """Whether there is too little memory for one more call, of any caller."""


UNLIMITED_MEMORY = MemoryPressure()
