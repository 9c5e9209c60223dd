"""Memory pressure as the service sees it. `gateway.overload.memory_monitor` measures it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class MemoryPressure(Protocol):
    """The memory that the process may have."""

    @property
    def used_share(self) -> float:
        """How much is in use, from 0 to 1; 0 where there is no limit."""

    @property
    def is_short(self) -> bool:
        """Whether there is too little for one more call, whose ever it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """As it was when somebody looked."""

    used_share: float = 0.0
    """How much was in use."""
    is_short: bool = False
    """Whether that was too much."""


PLENTY = Seen()
"""Nobody looks."""
