"""Load of the process, the thresholds at which it refuses calls, and its refusals."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from pomogator.operations.v1 import operations_service_pb2 as pb

from services.overload.lateness import LatenessTracker
from services.overload.load_shedder import LoadShedder
from services.telemetry.call_metrics import CallMetrics
from services.telemetry.calls import CallLog


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Load of a process: calls, lateness, memory and refusals."""

    load_shedder: LoadShedder
    calls: CallLog
    call_metrics: CallMetrics
    """Metrics of the calls."""

    def get(self) -> pb.GetLoadResponse:
        """Return the load at this moment."""
        shedder = self.load_shedder
        bounds, memory = shedder.bounds, shedder.memory
        return pb.GetLoadResponse(
            overloaded=shedder.is_overloaded,
            in_flight_call_count=len(self.calls.live),
            calls_max=shedder.calls_max,
            calls_max_normal=bounds.calls_max,
            calls_max_when_late=bounds.calls_max_when_late,
            loop_turns=_lateness(shedder.loop_turns),
            queue_waits=_lateness(shedder.queue_waits),
            memory_used_share=memory.used_share,
            memory_short=memory.is_short,
            refusals=self.call_metrics.refusals(),
        )


def _lateness(tracker: LatenessTracker) -> pb.Lateness:
    return pb.Lateness(
        latest=None if tracker.latest_s is None else _duration(tracker.latest_s),
        threshold=_duration(tracker.late_s),
        sustained=_duration(tracker.late_for_s),
        overloaded=tracker.is_overloaded,
    )


def _duration(seconds: float) -> Duration:
    found = Duration()
    found.FromNanoseconds(round(seconds * 1e9))
    return found
