"""Metadata of calls: the facts of a call to gRPC metadata, and the service's metadata to headers.

The second direction has a list of allowed names: other metadata of the service never reach a
client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from services.common.call_names import (
    IDEMPOTENCY_KEY_HEADER,
    REQUEST_ID_HEADER,
    SURFACE_HEADER,
    TAGS_HEADER,
)
from services.domain.call_options import CallOptions, TraceContext

_CLIENT_METADATA = ("x-ratelimit-", "x-pomogator-", "idempotency-replayed")
NO_TRACE: TraceContext = {}
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1024}")


def call_metadata(
    key: str | None,
    request_id: str,
    idempotency_key: str | None = None,
    trace_context: TraceContext = NO_TRACE,
) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call to the service."""
    named = (("authorization", f"Bearer {key}"), (REQUEST_ID_HEADER, request_id))
    pairs = (*named, *trace_context.items())
    return (*pairs, (IDEMPOTENCY_KEY_HEADER, idempotency_key)) if idempotency_key else pairs


def completion_metadata(call: CallOptions) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a completion."""
    pairs = call_metadata(call.key, call.request_id, call.idempotency_key, call.trace_context)
    if call.surface:
        pairs = (*pairs, (SURFACE_HEADER, call.surface))
    return (*pairs, (TAGS_HEADER, call.tags)) if call.tags else pairs


def response_headers(pairs: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Return the headers for clients in the service's metadata."""
    return {
        key: value
        for key, value in pairs
        if key.startswith(_CLIENT_METADATA)
        and isinstance(value, str)
        and _HEADER_VALUE.fullmatch(value)
    }
