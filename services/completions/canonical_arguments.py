"""Arguments of tool calls in one form, however a client writes them."""

from __future__ import annotations

import msgspec

from services.common.json_errors import NOT_JSON

VALUES_MAX = 20_000
"""The most values of arguments that are read: that takes 10 ms. Arguments with more of them are
recognized only as they were written."""


def canonical(arguments: str) -> bytes:
    """Return arguments in a form that does not depend on white space, order and number format."""
    text = arguments.strip() or "{}"
    if sum(map(text.count, ",[{")) > VALUES_MAX:
        return text.encode("utf-8", "surrogatepass")
    try:
        value = msgspec.json.decode(text)
    except NOT_JSON:
        return text.encode("utf-8", "surrogatepass")
    return msgspec.json.encode(_with_integers(value), order="sorted")


def _with_integers(value: object) -> object:
    """Return a value with 1.0 as 1: JavaScript knows no difference."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_with_integers(item) for item in value]
        case dict():
            return {key: _with_integers(item) for key, item in value.items()}
    return value
