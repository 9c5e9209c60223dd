"""Pictures for dialects: what they really are, and by value or by reference.

The media type that a caller states is often wrong, and some providers check it. So the
first bytes decide; only where they tell nothing is the caller believed. Nothing here
decodes a picture whole, and nothing fetches one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass

from pomogator.chat.v1 import content_pb2
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure
from services.providers.base import Target
from services.providers.parameters import require


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineImage:
    """A picture by value."""

    mime_type: str
    """What it really is, such as `image/png`."""
    base64: str
    """With padding, without line breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedImage:
    """A picture that the provider fetches."""

    uri: str
    """As the caller gave it."""


def read(
    image: content_pb2.Image, target: Target, *, accepts: Collection[str] = ()
) -> InlineImage | LinkedImage:
    """The picture in the form in which it travels.

    Raises INVALID_IMAGE where it has no source, is nowhere on the web (a server of models
    on this machine may read `file:`), or is of none of the media types in `accepts`
    (empty: any); UNSUPPORTED_FEATURE where the provider fetches no pictures.
    """
    match image.WhichOneof("source"):
        case "uri":
            require(target.capabilities.image_uris, "messages", "images by URL")
            if not image.uri.lower().startswith(_WEB):
                raise _refusal("An image's URL must begin with `https://` or `http://`.")
            return LinkedImage(uri=image.uri)
        case "data":
            head = image.data[:_HEAD]
            text = base64.b64encode(image.data).decode("ascii")
        case "base64":
            text = image.base64  # Every look at it is a copy.
            head = _head(text)
        case _:
            raise _refusal("An image has no source.")
    mime_type = sniff(head) or image.mime_type.lower()
    if accepts and mime_type not in accepts:
        kinds = ", ".join(sorted(accepts))
        raise _refusal(f"An image is {mime_type or 'of an unknown kind'}; the model takes {kinds}.")
    return InlineImage(mime_type=mime_type, base64=text)


def sniff(head: bytes) -> str:
    """The media type that a file's first bytes tell. Empty: they tell none."""
    for magic, offset, mime_type in _MAGICS:
        if head.startswith(magic, offset):
            return mime_type
    return ""


_WEB = ("https://", "http://")
_HEAD = 16  # Bytes: the longest magic below ends before.

_MAGICS: tuple[tuple[bytes, int, str], ...] = (
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"GIF87a", 0, "image/gif"),
    (b"GIF89a", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"BM", 0, "image/bmp"),
    (b"II*\x00", 0, "image/tiff"),
    (b"MM\x00*", 0, "image/tiff"),
    (b"ftypheic", 4, "image/heic"),
    (b"ftypmif1", 4, "image/heif"),
    (b"ftypavif", 4, "image/avif"),
    (b"%PDF-", 0, "application/pdf"),
)
"""Magic number, where it stands, what it means."""


def _head(text: str) -> bytes:
    """The first bytes of base64 text."""
    try:
        return base64.b64decode(text[: _HEAD * 2], validate=True)
    except binascii.Error as error:
        raise _refusal("An image is not valid base64.") from error


def _refusal(message: str) -> Failure:
    return Failure(reasons.ERROR_REASON_INVALID_IMAGE, message, param="messages")
