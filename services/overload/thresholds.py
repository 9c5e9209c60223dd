"""Thresholds of load shedding in the service.

The limit on calls in flight is configuration: `calls_max` and `calls_max_when_late` of
`[bounds]`. What edge and service share is in `services.common`: in `fair_share`, when a caller is
light, and how much spare capacity there is; in `retry_after`, when refused callers return. The edge
has thresholds of its own in `gateway.overload.thresholds`.
"""

from __future__ import annotations

TURN_LATE_S = 0.015
"""A turn of the event loop that takes longer is late. A refusal waits for two or three turns, and
should reach its caller within 50 ms."""
TURN_LATE_FOR_S = 0.3
"""Loop turns that are late for so long without a break mean overload."""

QUEUE_WAIT_S = 0.1
"""A call that waited longer in gRPC's queue, before a handler saw it, is late. While late calls
mean overload, one call is refused per such interval, so that their callers learn of it: most of
the others can be served soon. Calls of light callers are not chosen."""
QUEUE_WAIT_FOR_S = 1.0
"""Calls that are late for so long without a break mean overload. A burst of a few hundred calls
takes half of it."""
QUEUE_WAIT_MAX_S = 0.5
"""While late calls mean overload, each call that waited longer than this is refused: there are too
many to be served soon."""

SAMPLE_GAP_MAX_S = 1.0
"""Two late samples that lie further apart are not without a break: no sample was taken between
them."""
RECOVERY_S = 5.0
"""Overload ends when no sample has been late for so long."""

CALLS_PER_SAMPLE_WHEN_BUSY = 16
"""Number of calls that may start between two samples of the loop during an overload whose latest
sample was in time. 100 starts in one turn of the loop make it late, for the refused calls, too."""

SAMPLE_INTERVAL_S = 0.25
"""The interval between samples of the event loop while fewer than `calls_max_when_late` calls are
in flight."""
SAMPLE_INTERVAL_WHEN_BUSY_S = 0.025
"""The same, while as many or more are in flight."""
