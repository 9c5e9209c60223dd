"""JSON of a request that is copied into the provider's body unchanged."""

from __future__ import annotations

import msgspec

from services.common.json_errors import NOT_JSON
from services.errors import invalid


def raw_object(data: bytes, param: str) -> msgspec.Raw:
    """Return JSON that is sent unchanged. Raises INVALID_FIELD unless `data` is one JSON object.

    Bytes that are not checked could close the object around them and add keys to it.
    """
    try:
        msgspec.json.decode(data, type=dict)
    except (ValueError, RecursionError) as error:
        raise invalid(param, f"`{param}` is not a JSON object.") from error
    return msgspec.Raw(data)


def valid_json(text: bytes, param: str) -> msgspec.Raw:
    """Return JSON that is sent unchanged. Raises INVALID_FIELD unless it is one value."""
    try:
        if not text.isascii():
            text.decode()  # msgspec does not check the strings that it skips.
        return msgspec.json.decode(text, type=msgspec.Raw).copy()
    except NOT_JSON as error:
        raise invalid(param, f"A part of `{param}` is not JSON.") from error
