"""Number of fields in an encoded message, counted before any object is built from it.

A field of two bytes becomes an object of a hundred in Python, so that a message of 48 MiB could
take gigabytes. So could the values of JSON in the fields whose names end in `_json`, which count as
fields do. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_VARINT, _I64, _LEN, _GROUP, _GROUP_END, _I32 = range(6)
_FIXED = {_I64: 8, _I32: 4, _GROUP: 0, _GROUP_END: 0}
_TEXTS = frozenset({FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES})

_CONTINUATIONS = bytes(range(0x80, 0x100))

PACKED_PER_FIELD = 3
"""Packed numbers, such as the IDs of tokens, that take the memory of one other field."""

_JSON: Final = "json"
_NO_SEPARATORS = bytes(byte for byte in range(256) if byte not in b',:[{"')

_Fields: TypeAlias = "dict[int, Descriptor | Literal['json'] | None]"


@lru_cache(maxsize=1024)
def _counted_fields(message: Descriptor) -> _Fields:
    """Fields whose content counts: messages, with their type, JSON, and packed numbers (None)."""
    fields: _Fields = {}
    for field in message.fields:
        if field.type not in _TEXTS:
            fields[field.number] = field.message_type
        elif field.name.endswith("_json"):
            fields[field.number] = _JSON
    return fields


def count_fields(data: bytes, message: Descriptor, most: int) -> int:
    """Return the number of fields in `data`, at any depth, or more than `most` where it has more.

    Malformed data is counted as far as it can be read.
    """
    count = 0
    ends: list[tuple[int, Descriptor]] = [(len(data), message)]
    at = 0
    while ends:
        end, kind = ends[-1]
        if at >= end:
            ends.pop()
            continue
        tag, at = _varint(data, at)
        count += 1
        if count > most:
            return count
        wire = tag & 7
        if wire == _VARINT:
            _, at = _varint(data, at)
        elif wire == _LEN:
            size, at = _varint(data, at)
            fields = _counted_fields(kind)
            number = tag >> 3
            inner = fields.get(number)
            if inner == _JSON:
                count += count_separators(data[at : min(at + size, end)], most)
            elif inner is not None:
                ends.append((min(at + size, end), inner))
                continue
            elif number in fields:
                count += _packed(data[at : min(at + size, end)]) // PACKED_PER_FIELD
            at += size
        elif wire in _FIXED:
            at += _FIXED[wire]
        else:
            return count
    return count


def _packed(numbers: bytes) -> int:
    """Return how many numbers are packed here, at most: each ends with a byte below 0x80."""
    return len(numbers.translate(None, _CONTINUATIONS))


def count_separators(json: bytes, most: int) -> int:
    """Return the number of JSON's values and names, or more than `most` where it has more.

    Each has a separator before it, which is counted outside of strings.
    """
    if b"\\" in json:
        json = json.replace(rb"\\", b"").replace(rb"\"", b"")
    kept = json.translate(None, _NO_SEPARATORS)
    if kept.count(b'"') > 2 * most:
        return most + 1  # Two quotes are a string, and so a value or a name.
    return len(b"".join(kept.split(b'"')[::2]))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where it ends: at the end of the data where it is cut."""
    value = shift = 0
    size = len(data)
    while at < size:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            break
        shift += 7
    return value, at
