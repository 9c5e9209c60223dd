"""Strict JSON reader: accepts only JSON that every reader understands in the same way.

RFC 8259 leaves duplicate keys, lone surrogates, encodings and depth to the reader. Where two
readers differ, the JSON that was checked is not the JSON that is sent: so all of those are refused.
Every pass over the text runs at the speed of C: an image of a megabyte costs about 1 ms.
"""

from __future__ import annotations

import json
import re

import msgspec
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import ApiError, json_error

DEPTH_MAX = 64
"""The deepest nesting of arrays and objects."""

VALUES_MAX = 200_000
"""The most values and member names in a body. Each costs up to 100 bytes of memory and
0.2 µs of CPU once it is an object, whatever it takes in the body (two bytes for `[]` in a list)."""

_BOM = b"\xef\xbb\xbf"
_SLICE_BYTES = 1 << 20
_SEPARATORS = b",:[{"
_NOT_SEPARATORS = bytes(byte for byte in range(256) if byte not in _SEPARATORS)
_NOT_SEPARATORS_OR_QUOTES = _NOT_SEPARATORS.replace(b'"', b"")
_NOT_BACKSLASH = re.compile(rb"[^\\]")
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_SQUARE = bytes.maketrans(b"{}", b"[]")


def parse(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of the JSON object in `body`, each as its own JSON text.

    Members that are `null` are left out: in this API `null` means absent.

    Raises:
        ApiError: `body` is not a JSON object, or readers could disagree about it.
    """
    body = body.removeprefix(_BOM)
    refuse_too_many_values(body)
    text = _text(body)
    fields = _members(body)
    if _too_deep(body):
        raise json_error("json_too_deep", f"The body is nested more than {DEPTH_MAX} levels deep.")
    _UNIQUE.decode(text)
    return {name: raw for name, raw in fields.items() if not is_null(raw)}


def refuse_too_many_values(body: bytes) -> None:
    """Refuse a body of more than `VALUES_MAX` values before an object is made of any of them.

    `body` need not be valid JSON; one that passes and is valid has at most that many values and
    names. The check costs 0.3 ms of CPU per MiB, and 4 ms where it has to look into strings.

    Raises:
        ApiError: there are more.
    """
    # A value needs two bytes, and a separator before it.
    if len(body) <= VALUES_MAX or _separators(body) < VALUES_MAX:
        return
    # Some or all of those may be in strings. What is left of a slice is small if it is text.
    rest: list[bytes] = []
    size = 0
    begin = 0
    while begin < len(body):
        # An escape sequence is never cut in two.
        end = _NOT_BACKSLASH.search(body, begin + _SLICE_BYTES)
        piece = body[begin : end.end() if end else len(body)]
        begin += len(piece)
        unescaped = piece.replace(rb"\\", b"").replace(rb"\"", b"")
        kept = unescaped.translate(None, _NOT_SEPARATORS_OR_QUOTES)
        # Two quotes are a string, and so a value or a name.
        size += kept.count(b'"')
        if size > 2 * VALUES_MAX:
            raise _too_many_values()
        rest.append(kept)
    outside = b"".join(b"".join(rest).split(b'"')[::2])
    if len(outside) >= VALUES_MAX:
        raise _too_many_values()


def _separators(text: bytes) -> int:
    """The number of characters in `text` before which or after which a value begins."""
    return len(text.translate(None, _NOT_SEPARATORS))


def _too_many_values() -> ApiError:
    message = f"The body has more than {VALUES_MAX} values."
    return json_error("json_too_many_values", message)


def is_null(raw: msgspec.Raw) -> bool:
    """Whether the value is absent or `null`."""
    view = memoryview(raw)
    return len(view) == 0 or (len(view) == 4 and view[0] == ord("n"))


def _text(body: bytes) -> str:
    # JSON in UTF-16 or UTF-32 has a zero among its first bytes; JSON in UTF-8 never has.
    if b"\0" in body[:4]:
        raise json_error("invalid_encoding", "The body must be in UTF-8.")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"The body is not valid UTF-8 at byte {error.start}."
        raise json_error("invalid_encoding", message) from None


def _members(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _OBJECT.decode(body)
    except msgspec.ValidationError:
        message = "The body must be a JSON object."
        raise ApiError(reasons.ERROR_REASON_INVALID_JSON, message) from None
    except msgspec.DecodeError as error:
        if "surrogate" in str(error) or _LONE_SURROGATE.search(body):
            message = "The body has half of a surrogate pair, which is no character."
            raise json_error("invalid_encoding", message) from None
        # Such as "JSON is malformed: invalid character (byte 5)": a position, never the text.
        message = f"The body cannot be read. {error}."
        raise ApiError(reasons.ERROR_REASON_INVALID_JSON, message) from None
    except RecursionError:
        message = f"The body is nested more than {DEPTH_MAX} levels deep."
        raise json_error("json_too_deep", message) from None


def _too_deep(body: bytes) -> bool:
    """Whether `body`, which is valid JSON, is nested too deep."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return False
    # Of the brackets outside of strings, each round removes the innermost level.
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = b"".join(unescaped.split(b'"')[::2])
    brackets = outside.translate(_SQUARE, _NOT_BRACKETS)
    for _ in range(DEPTH_MAX):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


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
