"""JSON, read strictly: what it means is what any other reader would make of it.

RFC 8259 leaves duplicate keys, lone surrogates, encodings and depth to the reader; where
two readers differ, what was checked is not what is sent. So all of those are refused.
Every pass over the text runs at the speed of C: a picture of a megabyte costs about 1 ms.
"""

from __future__ import annotations

import json
import re

import msgspec
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import ApiError, finer

DEPTH_MAX = 64
"""How deep arrays and objects may be nested."""

_BOM = b"\xef\xbb\xbf"
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_SQUARE = bytes.maketrans(b"{}", b"[]")


def parse(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of the object that `body` is, each as its own JSON text.

    Members that are `null` are left out: in this API that is how to say nothing.

    Raises:
        ApiError: `body` is no JSON object, or one that readers could disagree about.
    """
    body = body.removeprefix(_BOM)
    text = _text(body)
    fields = _members(body)
    if _too_deep(body):
        raise finer("json_too_deep", f"The body is nested more than {DEPTH_MAX} levels deep.")
    _UNIQUE.decode(text)
    return {name: raw for name, raw in fields.items() if not is_null(raw)}


def is_null(raw: msgspec.Raw) -> bool:
    """Whether the value is absent or `null`."""
    view = memoryview(raw)
    return len(view) == 0 or (len(view) == 4 and view[0] == ord("n"))


def _text(body: bytes) -> str:
    # No JSON in UTF-8 begins with a zero among its first bytes; any in UTF-16 or UTF-32 does.
    if b"\0" in body[:4]:
        raise finer("invalid_encoding", "The body must be in UTF-8.")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"The body is not valid UTF-8 at byte {error.start}."
        raise finer("invalid_encoding", message) from None


def _members(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _OBJECT.decode(body)
    except msgspec.ValidationError:
        message = "The body must be a JSON object."
        raise ApiError(reasons.ERROR_REASON_INVALID_JSON, message) from None
    except msgspec.DecodeError as error:
        if "surrogate" in str(error) or _LONE_SURROGATE.search(body):
            message = "The body has half of a surrogate pair, which is no character."
            raise finer("invalid_encoding", message) from None
        # Such as "JSON is malformed: invalid character (byte 5)": a position, never a quotation.
        message = f"The body cannot be read. {error}."
        raise ApiError(reasons.ERROR_REASON_INVALID_JSON, message) from None
    except RecursionError:
        message = f"The body is nested more than {DEPTH_MAX} levels deep."
        raise finer("json_too_deep", message) from None


def _too_deep(body: bytes) -> bool:
    """Whether the valid JSON `body` is nested too deep."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return False
    # Without its strings, and all but brackets, each round takes one level off: the leaves.
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
            raise finer("duplicate_key", f"An object has the key {name[:64]!a} twice.")
        seen.add(name)


# The standard reader is slower, but tells of duplicates. Numbers are not converted: it would
# refuse those of more than 4300 digits, and nobody asks for the result.
_UNIQUE = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_int=len, parse_float=len)
