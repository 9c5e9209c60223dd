"""Vectors of an answer: base64 or JSON numbers, checked, in the form that the caller wants."""

from __future__ import annotations

import binascii
import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from services.domain.embeddings import Embedding
from services.providers.unusable_answers import unreadable

_NUMBERS = msgspec.json.Decoder(list[float])
_TEXT = msgspec.json.Decoder(str)


class Vectors(NamedTuple):
    """Vectors of one answer, in the order of the entries."""

    embeddings: Sequence[Embedding]
    dimensions: int
    """Length of each of them."""


def read_vectors(found: Iterable[msgspec.Raw], *, as_numbers: bool) -> Vectors:
    """Return the vectors of an answer, each a JSON array of numbers or a string in base64.

    With `as_numbers` an array stays as it is written. Raises UPSTREAM_BAD_RESPONSE unless all of
    them are equally long, and all components are numbers that a float32 can express.
    """
    embeddings: list[Embedding] = []
    length = 0
    for raw in found:
        components = _components(raw)
        length = length or len(components)
        # A sum with an infinity or a NaN is no number, and of one vector it cannot overflow.
        if not components or len(components) != length or not math.isfinite(sum(components)):
            raise unreadable()
        if as_numbers and not bytes(raw).startswith(b'"'):
            embeddings.append(Embedding(numbers_json=bytes(raw)))
        else:
            embeddings.append(Embedding(_little_endian(components)))
    return Vectors(embeddings, length)


def _components(raw: msgspec.Raw) -> array[float]:
    components = array("f")
    try:
        if not bytes(raw).startswith(b'"'):
            return array("f", _NUMBERS.decode(raw))
        components.frombytes(binascii.a2b_base64(_TEXT.decode(raw), strict_mode=True))
    except (ValueError, OverflowError, RecursionError):
        raise unreadable() from None
    if sys.byteorder == "big":
        components.byteswap()
    return components


def _little_endian(components: array[float]) -> bytes:
    if sys.byteorder == "big":
        components.byteswap()
    return components.tobytes()
