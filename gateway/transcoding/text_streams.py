"""Streams of text instead of JSON lines: the media type and the bytes of each of their messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pomogator.calls.v1 import call_service_pb2 as calls


class TextPart(NamedTuple):
    """Part of a text."""

    mime_type: str
    data: bytes


def _export(response: calls.ExportCallsResponse | calls.ExportCallSumsResponse) -> TextPart:
    return TextPart(response.mime_type, response.data)


TEXT_STREAMS: Mapping[str, Callable[[Any], TextPart]] = {
    "pomogator.calls.v1.CallService.ExportCalls": _export,
    "pomogator.calls.v1.CallService.ExportCallSums": _export,
}
"""Reads a message of a stream, by the method's full name."""

MIME_TYPES = ("text/csv", "application/x-ndjson")
"""Media types of these streams."""
