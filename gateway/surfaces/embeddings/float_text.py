"""Decimal numbers of float32 vectors: the fewest digits from which the same float32 is read."""

from __future__ import annotations

import sys
from array import array

DIGITS_MIN, DIGITS_MAX = 7, 9
"""Digits that may suffice, and those that always do (IEEE 754, 5.12.2)."""


def numbers_json(float32_le: bytes) -> bytes:
    """Return the components of a vector as a JSON array of numbers."""
    components = array("f", float32_le)
    if sys.byteorder == "big":
        components.byteswap()
    texts = [f"{each:.{DIGITS_MIN}g}" for each in components]
    read_again = array("f", map(float, texts))
    for index, component in enumerate(components):
        if component != read_again[index]:
            texts[index] = _shortest(component)
        elif texts[index] == "-0":
            texts[index] = "-0.0"  # Without a point it would be an integer, which has no such zero.
    return f"[{','.join(texts)}]".encode()


def _shortest(component: float) -> str:
    for digits in range(DIGITS_MIN + 1, DIGITS_MAX):
        text = f"{component:.{digits}g}"
        if array("f", [float(text)])[0] == component:
            return text
    return f"{component:.{DIGITS_MAX}g}"
