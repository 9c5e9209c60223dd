"""Parts of a process that all of its service uses: clock, telemetry, background tasks."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from services.clock import Chance, Clock
from services.common.plain_metrics import PlainMetrics
from services.common.process_metrics import ProcessMetrics
from services.providers.channel_failures import ChannelFailures
from services.rpc.rpc_log import RpcLog
from services.telemetry.call_metrics import CallMetrics
from services.telemetry.calls import CallLog
from services.telemetry.supervisor import Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessParts:
    """Shared by all parts of the service of one process."""

    stack: AsyncExitStack
    """Closes what was opened, in the reverse order."""
    clock: Clock
    chance: Chance
    metrics: ProcessMetrics
    supervisor: Supervisor
    call_metrics: CallMetrics
    calls: CallLog
    """Log of completions."""
    rpcs: RpcLog
    """Log of all other calls."""
    failures: ChannelFailures
    """Failures of channels, for operators."""

    @property
    def counters(self) -> PlainMetrics:
        """Metrics, among which components declare theirs."""
        return self.metrics.counters
