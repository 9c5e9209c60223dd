"""Thresholds of admission and load shedding at the edge, all in one table.

Limits that an operator sets are in `gateway.config`. `FLOOD_CALLS_MIN` and
`LIGHT_SHARE` of `services.common.fair_share` decide when a caller is light, on both sides, and
`SPARE_SHARE` there how much spare capacity it has.
"""

from __future__ import annotations

# Connections of clients.

CONNECTION_DESCRIPTORS_SHARE = 0.4
"""Share of the process's file descriptors that connections of clients may use, whatever is
configured. Each call may need another descriptor, for its connection to a provider."""

EXCESS_CONNECTIONS_SHARE = 0.25
"""Connections above the limit that are answered with 503, as a share of the limit. Connections
above those are closed unanswered."""

IDLE_SWEEP_SHARE = 0.8
"""Open connections, as a share of the limit, from which on the idle timeout shrinks."""

IDLE_SWEEP_INTERVAL_S = 1.0
"""The interval between two searches for connections that are idle beyond the shorter timeout, and
the shortest timeout."""

ACCEPT_DESCRIPTORS_SHARE = 0.1
"""Share of the descriptors that connections accepted in one loop turn may use: those above the
limit are closed only in the next turn."""

# Calls to the service, where the service runs in another process.

GROWTH_INTERVAL_S = 1.0
"""How long a concurrency limit has to be in effect before it grows."""

GROWTH_DIVISOR = 16
"""One step of growth is at most the limit divided by this."""

REDUCTION_DIVISOR = 20
"""After a refusal by the service the limit is the number of calls in flight before the refused
one, less that number divided by this. Some of those calls still wait for admission by the service,
and should be admitted first."""

# Memory of the container, as shares of its limit. The stages are those of Envoy's overload manager:
# https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/overload_manager

MEMORY_LOW = 0.92
"""From here on freed memory returns to the kernel, and connections close after each answer."""

MEMORY_SHORT = 0.95
"""From here on calls are refused."""

MEMORY_CRITICAL = 0.98
"""From here on the connection that holds most memory is closed."""

MEMORY_HYSTERESIS = 0.03
"""A stage ends once usage is this far below its threshold."""

MEMORY_CHECK_INTERVAL_S = 0.25
"""The interval between memory checks."""

CHECKS_PER_REPEAT = 20
"""Memory checks from one return of freed memory to the next, and from one closed connection to the
next where the first did not lower usage."""

EFFECTIVE_CLOSE_SHARE = 0.001
"""Share of memory that a closed connection has to free for the next one to follow at once."""

CLOSE_BYTES_MIN = 16 * 1024
"""A connection that holds less memory is not closed: it would free next to nothing."""

# Memory of bodies. Measured: a request with a body of 26 MiB takes four times as much at most,
# while it is decoded and sent on.

BODY_COST_ARRIVING = 4
"""Bytes of memory for each byte of a body, until it is decoded."""

BODY_COST_DECODED = 2
"""Bytes of memory for each byte of a body after that, until its request has ended."""

BODY_MEMORY_SHARE = 0.7
"""Share of the memory of the container, or without a limit of the machine, for bodies."""

# Refusals.

LOG_INTERVAL_S = 1.0
"""At most one line in the log per limit and interval."""
