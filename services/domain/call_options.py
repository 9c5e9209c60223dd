"""Call options: facts of a call beside its request, from the edge to the core."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import msgspec

TraceContext: TypeAlias = Mapping[str, str]
"""The headers `traceparent` and `tracestate`, as far as the caller sent them."""


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a call beside its request."""

    request_id: str
    key: str | None
    """API key of the caller. The core decides whether it is valid. Empty: it has another form.
    None: the caller sent none."""
    deadline_s: float = math.inf
    """The most time that the call may take. Without it, its transport ends it."""
    request_bytes: int = 0
    """Size of the client's request, in its own form."""
    idempotency_key: str | None = None
    trace_context: TraceContext = {}
    surface: str = ""
    """API that the client has called, by its name in the call log."""
    tags: str = ""
    """The header `x-pomogator-tags`; empty without it."""
    queue_wait_s: float = 0.0
    """Time that the call waited in a queue before the service saw it; 0: it is not known."""

    __repr__ = object.__repr__  # Without the key.
