"""Strict JSON reader: accepts only JSON that every reader understands in the same way.

RFC 8259 leaves duplicate keys, lone surrogates, encodings and depth to the reader. Where two
readers differ, the JSON that was checked is not the JSON that is sent: so all of those are refused.
Every pass over the text runs at the speed of C: an image of a megabyte costs about 1 ms.

A large body is read in another thread (`services.common.off_loop`). One call into C keeps all other
threads from running, so no pass here is one call over a large body that takes over 50 ms.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable

import msgspec

from gateway.errors import ApiError, json_error
from services.common.json_errors import NOT_JSON
from services.common.json_values import SLICE_BYTES, VALUES_MAX, has_more_values, outside_strings
from services.domain.error_reason import ErrorReason

DEPTH_MAX = 64
"""The deepest nesting of arrays and objects."""

LARGE_BYTES = 1 << 20
"""Larger values are never read as one text: as such they take up to four times their size."""

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half of a surrogate pair in JSON; the other half may stand beside it."""

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_Utf8Decoder = codecs.getincrementaldecoder("utf-8")
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_SQUARE = bytes.maketrans(b"{}", b"[]")


def parse(body: bytes, *, values_max: int = VALUES_MAX) -> dict[str, msgspec.Raw]:
    """Return the members of the JSON object in `body`, each as its own JSON text.

    Members that are `null` are left out: in this API `null` means absent. `values_max` takes the
    place of `VALUES_MAX`, for bodies whose values become small objects. Raises ApiError: `body` is
    not a JSON object, or readers could disagree about it.
    """
    body = body.removeprefix(_BOM)
    refuse_too_many_values(body, values_max)
    refuse_invalid_utf8(body)
    fields = _members(body)
    if _too_deep(body):
        raise json_error("json_too_deep", f"The body is nested more than {DEPTH_MAX} levels deep.")
    if len(body) <= LARGE_BYTES:
        _UNIQUE.decode(body.decode())
    elif len(outside_strings(body, b":")) != _distinct_members(body.lstrip(_SPACE)):
        # Valid JSON has a colon for each member.
        raise json_error("duplicate_key", "An object of the body has a key twice.")
    return {name: raw for name, raw in fields.items() if not is_null(raw)}


def refuse_too_many_values(body: bytes, values_max: int = VALUES_MAX) -> None:
    """Refuse a body of more than `values_max` values before an object is made of any of them.

    `body` need not be valid JSON: see `services.common.json_values`. Raises ApiError: there are
    more.
    """
    if len(body) > values_max and has_more_values(body, values_max):
        message = f"The body has more than {values_max} values."
        raise json_error("json_too_many_values", message)


def is_null(raw: msgspec.Raw) -> bool:
    """Whether the value is absent or `null`."""
    view = memoryview(raw)
    return len(view) == 0 or (len(view) == 4 and view[0] == ord("n"))


def refuse_invalid_utf8(body: bytes) -> None:
    """Refuse a body in another encoding.

    Raises ApiError: it is not UTF-8. The message has the place of the first byte at fault.
    """
    # JSON in UTF-16 or UTF-32 has a zero among its first bytes; JSON in UTF-8 never has.
    if b"\0" in body[:4]:
        raise json_error("invalid_encoding", "The body must be in UTF-8.")
    if body.isascii():
        return
    decoder = _Utf8Decoder()
    for begin in range(0, len(body), SLICE_BYTES):
        end = begin + SLICE_BYTES
        waiting = len(decoder.getstate()[0])
        try:
            decoder.decode(body[begin:end], final=end >= len(body))
        except UnicodeDecodeError as error:
            at = begin - waiting + error.start
            message = f"The body is not valid UTF-8 at byte {at}."
            raise json_error("invalid_encoding", message) from None


def refuse_half_surrogates(value: object) -> None:
    """Refuse JSON that the standard reader has read, where a text of it cannot be encoded.

    Raises ApiError: a name or a value has half of a surrogate pair.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _half_surrogate() from None


def _half_surrogate() -> ApiError:
    message = "The body has half of a surrogate pair, which is no character."
    return json_error("invalid_encoding", message)


def _members(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _OBJECT.decode(body)
    except msgspec.ValidationError:
        message = "The body must be a JSON object."
        raise ApiError(ErrorReason.INVALID_JSON, message) from None
    except RecursionError:
        message = f"The body is nested more than {DEPTH_MAX} levels deep."
        raise json_error("json_too_deep", message) from None
    except NOT_JSON as error:
        if "surrogate" in str(error) or SURROGATE.search(body):
            raise _half_surrogate() from None
        # Such as "JSON is malformed: invalid character (byte 5)": a position, never the text.
        message = f"The body cannot be read. {error}."
        raise ApiError(ErrorReason.INVALID_JSON, message) from None


def _too_deep(body: bytes) -> bool:
    """Whether `body`, which is valid JSON, is nested too deep."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return False
    # Each round removes the innermost level.
    brackets = outside_strings(body, b"[]{}").translate(_SQUARE)
    for _ in range(DEPTH_MAX):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _distinct_members(value: bytes | msgspec.Raw) -> int:
    """The number of members in an array or object, without those of a name twice.

    No more than `LARGE_BYTES` of it become objects of Python at a time, names aside. Raises
    ApiError: a part that is not large has a name twice.
    """
    if len(memoryview(value)) <= LARGE_BYTES:
        return _distinct_members_of_small([bytes(value)])
    items: Iterable[msgspec.Raw]
    if memoryview(value)[0] == ord("["):
        count, items = 0, _ARRAY.decode(value)
    else:
        members = _OBJECT.decode(value)
        count, items = len(members), members.values()
    small: list[bytes] = []
    size = 0
    for item in items:
        view = memoryview(item)
        if view[0] not in b"[{":
            continue
        if len(view) > LARGE_BYTES:
            count += _distinct_members(item)
            continue
        small.append(bytes(view))
        size += len(view)
        if size > LARGE_BYTES:
            count += _distinct_members_of_small(small)
            small, size = [], 0
    return count + _distinct_members_of_small(small)


def _distinct_members_of_small(values: Iterable[bytes]) -> int:
    array = b"[%b]" % b",".join(values)
    _UNIQUE.decode(array.decode())
    return len(outside_strings(array, b":"))


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> None:
    if len(pairs) == len(dict(pairs)):
        return
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise json_error("duplicate_key", f"An object has the key {name[:64]!a} twice.")
        seen.add(name)


# The standard reader is slower, but shows duplicates. Numbers are not converted: it would refuse
# those of more than 4300 digits, and the result is not used.
_UNIQUE = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_int=len, parse_float=len)
