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
from functools import cache

import msgspec

from gateway.errors import ApiError, json_error
from services.domain.error_reason import ErrorReason

DEPTH_MAX = 64
"""The deepest nesting of arrays and objects."""

VALUES_MAX = 200_000
"""The most values and member names in a body. Each costs up to 100 bytes of memory and
0.2 µs of CPU once it is an object, whatever it takes in the body (two bytes for `[]` in a list)."""

LARGE_BYTES = 1 << 20
"""Larger values are never read as one text: as such they take up to four times their size."""

_BOM = b"\xef\xbb\xbf"
_SLICE_BYTES = 1 << 20
_SEPARATORS = b",:[{"
_SPACE = b" \t\r\n"
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_Utf8Decoder = codecs.getincrementaldecoder("utf-8")
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SQUARE = bytes.maketrans(b"{}", b"[]")


def parse(body: bytes, *, values_max: int | None = None) -> dict[str, msgspec.Raw]:
    """Return the members of the JSON object in `body`, each as its own JSON text.

    Members that are `null` are left out: in this API `null` means absent. `values_max` takes the
    place of `VALUES_MAX`, for bodies whose values become small objects.

    Raises:
        ApiError: `body` is not a JSON object, or readers could disagree about it.
    """
    body = body.removeprefix(_BOM)
    refuse_too_many_values(body, values_max)
    _refuse_invalid_utf8(body)
    fields = _members(body)
    if _too_deep(body):
        raise json_error("json_too_deep", f"The body is nested more than {DEPTH_MAX} levels deep.")
    if len(body) <= LARGE_BYTES:
        _UNIQUE.decode(body.decode())
    elif len(outside_strings(body, b":")) != _distinct_members(body.lstrip(_SPACE)):
        # Valid JSON has a colon for each member.
        raise json_error("duplicate_key", "An object of the body has a key twice.")
    return {name: raw for name, raw in fields.items() if not is_null(raw)}


def refuse_too_many_values(body: bytes, values_max: int | None = None) -> None:
    """Refuse a body of more than `VALUES_MAX` values before an object is made of any of them.

    `body` need not be valid JSON; one that passes and is valid has at most that many values and
    names. The check costs 0.3 ms of CPU per MiB, and 4 ms where it has to look into strings.

    Raises:
        ApiError: there are more.
    """
    # A value needs two bytes, and a separator before it.
    most = VALUES_MAX if values_max is None else values_max
    if len(body) <= most or _few(_SEPARATORS, body, most):
        return
    # Some or all of those may be in strings.
    if len(outside_strings(body, _SEPARATORS)) >= most:
        raise _too_many_values(most)


def outside_strings(body: bytes, characters: bytes) -> bytes:
    """Return those of `characters` that are outside of the strings of `body`, in order.

    Raises:
        ApiError: there are more strings than values are allowed.
    """
    unwanted = _all_but(characters + b'"')
    # What is left of a slice is small if it is text.
    rest: list[bytes] = []
    quotes = 0
    begin = 0
    while begin < len(body):
        piece = body[begin : begin + _SLICE_BYTES]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            # An escape sequence is never cut after its backslash.
            piece = body[begin : begin + _SLICE_BYTES + 1]
        begin += len(piece)
        if b"\\" in piece:
            piece = piece.replace(rb"\\", b"").replace(rb"\"", b"")
        kept = piece.translate(None, unwanted)
        # Two quotes are a string, and so a value or a name.
        quotes += kept.count(b'"')
        if quotes > 2 * VALUES_MAX:
            raise _too_many_values(VALUES_MAX)
        rest.append(kept)
    return b"".join(b"".join(rest).split(b'"')[::2])


def _few(separators: bytes, body: bytes, most: int) -> bool:
    """Whether `body` has fewer than `most` separators, those in strings included."""
    unwanted = _all_but(separators)
    slices = (
        body[begin : begin + _SLICE_BYTES].translate(None, unwanted)
        for begin in range(0, len(body), _SLICE_BYTES)
    )
    return sum(map(len, slices)) < most


@cache
def _all_but(characters: bytes) -> bytes:
    return bytes(byte for byte in range(256) if byte not in characters)


def _too_many_values(most: int) -> ApiError:
    message = f"The body has more than {most} values."
    return json_error("json_too_many_values", message)


def is_null(raw: msgspec.Raw) -> bool:
    """Whether the value is absent or `null`."""
    view = memoryview(raw)
    return len(view) == 0 or (len(view) == 4 and view[0] == ord("n"))


def _refuse_invalid_utf8(body: bytes) -> None:
    # JSON in UTF-16 or UTF-32 has a zero among its first bytes; JSON in UTF-8 never has.
    if b"\0" in body[:4]:
        raise json_error("invalid_encoding", "The body must be in UTF-8.")
    if body.isascii():
        return
    decoder = _Utf8Decoder()
    for begin in range(0, len(body), _SLICE_BYTES):
        end = begin + _SLICE_BYTES
        waiting = len(decoder.getstate()[0])
        try:
            decoder.decode(body[begin:end], final=end >= len(body))
        except UnicodeDecodeError as error:
            at = begin - waiting + error.start
            message = f"The body is not valid UTF-8 at byte {at}."
            raise json_error("invalid_encoding", message) from None


def _members(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _OBJECT.decode(body)
    except msgspec.ValidationError:
        message = "The body must be a JSON object."
        raise ApiError(ErrorReason.INVALID_JSON, message) from None
    except msgspec.DecodeError as error:
        if "surrogate" in str(error) or _LONE_SURROGATE.search(body):
            message = "The body has half of a surrogate pair, which is no character."
            raise json_error("invalid_encoding", message) from None
        # Such as "JSON is malformed: invalid character (byte 5)": a position, never the text.
        message = f"The body cannot be read. {error}."
        raise ApiError(ErrorReason.INVALID_JSON, message) from None
    except RecursionError:
        message = f"The body is nested more than {DEPTH_MAX} levels deep."
        raise json_error("json_too_deep", message) from None


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

    No more than `LARGE_BYTES` of it become objects of Python at a time, names aside.

    Raises:
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
