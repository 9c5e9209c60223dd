"""What a key looks like, so that nonsense is refused without a call.

`sk-pg-`, 43 characters of base62 (256 random bits), and 6 more that are the CRC-32 of
those, in base62. The checksum is no secret: it tells typing errors and other vendors'
keys from ours. Whether a well-formed key is valid is for the service to say.
"""

from __future__ import annotations

import re
import zlib

PREFIX = "sk-pg-"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Two digits at a time: with one, half of what the edge knows of a key's form is this loop.
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_BASE = len(_PAIRS)
_KEY = re.compile(r"sk-pg-([0-9A-Za-z]{43})([0-9A-Za-z]{6})")


def checksum(body: str) -> str:
    """The six characters that follow `body` in a key."""
    rest, low = divmod(zlib.crc32(body.encode("ascii")), _BASE)
    high, middle = divmod(rest, _BASE)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


def well_formed(token: str) -> bool:
    """Whether `token` has the form of a key and a checksum that fits."""
    match = _KEY.fullmatch(token)
    return match is not None and checksum(match[1]) == match[2]
