"""Parts of a process that all parts of its service use: clock, metrics, background tasks."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.clock import Chance, Clock
from services.common.plain_metrics import PlainMetrics
from services.common.process_metrics import ProcessMetrics
from services.telemetry.supervisor import Supervisor

if TYPE_CHECKING:
    from services.telemetry.call_spans import CallTracer


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessParts:
    """Shared by all parts of the service of one process."""

    stack: AsyncExitStack
    """Closes what was opened, in the reverse order."""
    clock: Clock
    chance: Chance
    metrics: ProcessMetrics
    supervisor: Supervisor
    tracer: CallTracer | None
    """None: calls are not traced."""

    @property
    def counters(self) -> PlainMetrics:
        """Where components declare their metrics."""
        return self.metrics.counters
