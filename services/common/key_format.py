"""Form of an API key: prefix, random characters and checksum.

A key is `sk-pg-`, 43 random characters of 0-9A-Za-z (256 bits) and a checksum of 6: the CRC-32
of the 43 in base 62, padded with zeros. The checksum is no secret: it tells typing errors, other
vendors' keys and the finds of scanners from our keys without a call or a look into the database.
Only the service can say whether a well-formed key is valid.
"""

from __future__ import annotations

import re
import secrets
import zlib

PREFIX = "sk-pg-"
RANDOM_CHARS = 43
CHECKSUM_CHARS = 6
KEY_CHARS = len(PREFIX) + RANDOM_CHARS + CHECKSUM_CHARS
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

KEY_ID = "key-"
"""Beginning of the ID by which operators and `[[limits]]` name a key."""

SHOWN_CHARS = len(PREFIX) + 8
"""Characters of a key that may be shown, to recognize it by. 208 bits stay unknown."""

# Two digits at a time: one at a time, this loop takes half of the time of `well_formed`.
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_BASE = len(_PAIRS)
_KEY = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{RANDOM_CHARS}}})([0-9A-Za-z]{{{CHECKSUM_CHARS}}})")


def new_secret() -> str:
    """Return a new key from the system's random source."""
    body = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARS))
    return f"{PREFIX}{body}{checksum(body)}"


def checksum(body: str) -> str:
    """The last six characters of a key, computed from its random characters."""
    rest, low = divmod(zlib.crc32(body.encode("ascii")), _BASE)
    high, middle = divmod(rest, _BASE)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


def well_formed(token: str) -> bool:
    """Whether `token` has the form of a key and the right checksum."""
    match = _KEY.fullmatch(token)
    return match is not None and checksum(match[1]) == match[2]
