"""Facts of a gRPC call beside its request: metadata, request ID, queue time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc

from services.common.call_names import REQUEST_ID_HEADER, TIMEOUT_HEADER
from services.common.request_headers import request_id_or_new

# Quoted: only the stubs make these generic.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"
"""Returns the handler behind an interceptor."""

TIMEOUT_MAX_S = 86_400.0
"""The longest timeout that a caller can mean."""

_request_id: ContextVar[str] = ContextVar("request_id")
"""ID of the call whose task this is."""

_request_bytes: ContextVar[int] = ContextVar("request_bytes", default=0)
"""Size of that call's request, if it is large."""


def metadata_of(context: Context) -> Mapping[str, str]:
    """Return the text metadata of a call; of a key that comes twice, the last value."""
    return {
        key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
    }


def open_request_id(context: Context) -> str:
    """Give the call of this task its ID: the caller's, if it is fit for logs, or a new one."""
    request_id = request_id_or_new(metadata_of(context).get(REQUEST_ID_HEADER))
    _request_id.set(request_id)
    return request_id


def current_request_id() -> str:
    """Return the ID of the call of this task. The border has opened it."""
    return _request_id.get()


def set_request_bytes(size: int) -> None:
    """Note the size of the request of this task's call."""
    _request_bytes.set(size)


def current_request_bytes() -> int:
    """Return the size of the request of this task's call; 0 if it is small."""
    return _request_bytes.get()


def unknown_request_id(context: Context) -> tuple[tuple[str, str], ...]:
    """Return the metadata that tells the caller the ID of the call; none if it has set the ID."""
    request_id = current_request_id()
    is_known = metadata_of(context).get(REQUEST_ID_HEADER) == request_id
    return () if is_known else ((REQUEST_ID_HEADER, request_id),)


def queue_wait_s(metadata: Mapping[str, str], left_s: float | None) -> float:
    """Return how long a call waited in gRPC's queue, where its caller states its timeout.

    A call's deadline runs from the moment at which gRPC has read the call. The timeout that the
    caller stated, less the time that is left, is the wait: no clock but this machine's is needed.
    The time in which the caller's gRPC looked for a server is in it, too, as far as rounding shows
    it. A timeout that cannot be meant counts as none.
    """
    try:
        timeout_s = float(metadata[TIMEOUT_HEADER])
    except (KeyError, ValueError):
        return 0.0
    return timeout_s - left_s if left_s is not None and 0 < timeout_s <= TIMEOUT_MAX_S else 0.0
