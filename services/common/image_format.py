"""Images in requests: limits, the check of their base64, and the media type that their bytes tell.

The media type that a caller declares is often wrong, and some providers refuse an image for that.
"""

from __future__ import annotations

import pybase64

IMAGES_MAX = 20
"""The most images of one request."""

IMAGE_BYTES_MAX = 20 * 2**20
"""The most bytes of all images of one request that are sent by value, decoded."""

HEAD_BYTES = 16
"""The first bytes of an image, of which `media_type` needs no more."""

_STEP = 64 * 1024
"""Bytes of base64 that are decoded together: few enough to be decoded into the same memory."""

_MAGIC: tuple[tuple[tuple[tuple[int, bytes], ...], str], ...] = (
    (((0, b"\xff\xd8\xff"),), "image/jpeg"),
    (((0, b"\x89PNG\r\n\x1a\n"),), "image/png"),
    (((0, b"GIF87a"),), "image/gif"),
    (((0, b"GIF89a"),), "image/gif"),
    (((0, b"RIFF"), (8, b"WEBP")), "image/webp"),
    (((0, b"BM"),), "image/bmp"),
    (((0, b"II*\x00"),), "image/tiff"),
    (((0, b"MM\x00*"),), "image/tiff"),
    (((4, b"ftypheic"),), "image/heic"),
    (((4, b"ftypheix"),), "image/heic"),
    (((4, b"ftypmif1"),), "image/heif"),
    (((4, b"ftypmsf1"),), "image/heif"),
    (((4, b"ftypavif"),), "image/avif"),
    (((4, b"ftypavis"),), "image/avif"),
    (((0, b"%PDF-"),), "application/pdf"),
)
"""Magic numbers with their offsets, and the media type that they mean together."""


def media_type(head: bytes) -> str:
    """The media type that a file's first bytes tell. Empty: none that is known."""
    for magic, name in _MAGIC:
        if all(head.startswith(number, offset) for offset, number in magic):
            return name
    return ""


def checked_head(base64: bytes) -> bytes:
    """Return the image's first bytes. Raises ValueError for anything but base64 with padding.

    To decode all of it with vector instructions, and drop the result, takes 60 µs for 1 MB. To
    look for characters outside of the alphabet with the standard library takes 650 at best.
    """
    view = memoryview(base64)
    head = b""
    for begin in range(0, len(view), _STEP):
        decoded = pybase64.b64decode(view[begin : begin + _STEP], validate=True)
        if len(decoded) < _STEP // 4 * 3 and begin + _STEP < len(view):
            raise ValueError("padding inside of base64")
        head = head or decoded[:HEAD_BYTES]
    return head


def checked(base64: bytes) -> tuple[bytes, bytes]:
    """Return base64 with padding, repaired if need be, and the image's first bytes.

    Line breaks and spaces are removed, padding is added, and the alphabet for URLs is replaced, as
    OpenAI's API does. Raises ValueError for other text.
    """
    try:
        return base64, checked_head(base64)
    except ValueError:
        plain = base64.translate(_STANDARD, b" \t\r\n").rstrip(b"=")
        repaired = plain + b"=" * (-len(plain) % 4)
        return repaired, checked_head(repaired)


_STANDARD = bytes.maketrans(b"-_", b"+/")


def decoded_bytes(base64_chars: int) -> int:
    """How many bytes so much base64 stands for, two bytes at most too many."""
    return base64_chars * 3 // 4
