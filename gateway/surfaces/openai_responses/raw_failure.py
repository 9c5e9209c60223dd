"""Failure of a stream that is passed on as it is: the last event of the provider's response."""

from __future__ import annotations

import re

import msgspec

from gateway.errors import ApiError
from gateway.surfaces.openai_responses.failure_codes import failure_members
from gateway.surfaces.openai_responses.output_item import Json
from services.common.json_errors import NOT_JSON

_NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d{1,15})')
_DATA = re.compile(rb"^data: ?(\{.*\})\r?$", re.MULTILINE)


class _Event(msgspec.Struct):
    response: Json = {}


_EVENT = msgspec.json.Decoder(_Event)


def failed_response(head: bytes, last: bytes, error: ApiError) -> bytes:
    """Render a failed response. `head` begins with the response, `last` has the last number."""
    numbers = _NUMBER.findall(last)
    data = {
        "type": "response.failed",
        "response": {**_response(head), "status": "failed", "error": failure_members(error)},
        "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
    }
    return b"event: response.failed\ndata: %b\n\n" % msgspec.json.encode(data)


def _response(head: bytes) -> Json:
    """Return the response at the beginning of a stream; an empty one where none can be read."""
    first = _DATA.search(head)
    try:
        return _EVENT.decode(first[1]).response if first is not None else {}
    except NOT_JSON:
        return {}
