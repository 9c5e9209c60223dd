"""Seal: text that a browser keeps and can neither read nor change.

HMAC-SHA256 is both the key stream, in counter mode, and the tag over nonce and ciphertext. Each use
has a key of its own, derived from one secret.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from itertools import count

SECRET_CHARS_MIN = 32
_NONCE_BYTES = 16
_TAG_BYTES = 32
SEALED_CHARS_MAX = 4096
"""The longest cookie that browsers keep."""


class Seal:
    """Seals and opens with one secret. All edges that share the secret open each other's seals."""

    def __init__(self, secret: str, purpose: str) -> None:
        """`purpose` separates what is sealed for one use from all other uses of the secret."""
        key = secret.encode()
        self._stream_key = _mac(key, f"{purpose}: stream".encode())
        self._tag_key = _mac(key, f"{purpose}: tag".encode())

    def seal(self, plain: bytes) -> str:
        """Return the sealed text, in the alphabet of URLs."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        hidden = nonce + self._mask(plain, nonce)
        sealed = base64.urlsafe_b64encode(hidden + _mac(self._tag_key, hidden))
        return sealed.rstrip(b"=").decode()

    def unseal(self, text: str) -> bytes | None:
        """Return what was sealed. None: this secret has not sealed it."""
        if not text.isascii() or len(text) > SEALED_CHARS_MAX:
            return None
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        hidden, tag = sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:]
        if not hmac.compare_digest(tag, _mac(self._tag_key, hidden)):
            return None
        return self._mask(hidden[_NONCE_BYTES:], hidden[:_NONCE_BYTES])

    def _mask(self, data: bytes, nonce: bytes) -> bytes:
        """Add the key stream of the nonce, which hides the data, or shows it again."""
        stream = bytearray()
        for block in count():
            if len(stream) >= len(data):
                break
            stream += _mac(self._stream_key, nonce + block.to_bytes(8))
        return bytes(each ^ mask for each, mask in zip(data, stream, strict=False))


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
