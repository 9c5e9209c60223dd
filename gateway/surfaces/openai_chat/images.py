"""Pictures in requests: data URLs taken apart, their base64 left as it is.

Nothing of a picture is kept decoded. Its first bytes say what it is: the media type that a
client declares is often wrong, and some providers refuse a picture for that.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import ApiError
from services.common.images import checked_head, decoded_bytes, media_type

_HEAD = re.compile(r"data:[^,]{0,256}?;base64,", re.IGNORECASE)

ACCEPTED = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Media types that OpenAI's API takes."""


class Picture(NamedTuple):
    """A picture by reference or by value."""

    uri: str = ""
    """Where it is; with a value, nothing."""
    base64: str = ""
    """Its bytes; with a reference, nothing."""
    mime_type: str = ""
    """What the bytes say that it is."""


class ImageReader:
    """Reads the pictures of one request, and counts them.

    `extracted` are those that `gateway.surfaces.openai_chat.image_extraction` has cut out; who is
    asked for takes its leave.

    Raises `ApiError` for a picture that cannot be one, or is one too many.
    """

    __slots__ = ("_bytes_left", "_extracted", "_images_left")

    def __init__(
        self, *, images_max: int, bytes_max: int, extracted: dict[str, bytes] | None = None
    ) -> None:
        self._extracted = extracted or {}
        self._images_left = images_max
        self._bytes_left = bytes_max

    def read(self, param: str, url: str) -> Picture:
        """The picture at `url`, which the field `param` holds."""
        self._images_left -= 1
        if self._images_left < 0:
            raise _bad(param, "There are too many pictures in this request.")
        if url[:5].lower() != "data:":
            return Picture(uri=url)
        head = _HEAD.match(url)
        if head is None:
            raise _bad(param, "A data URL must have the form `data:image/png;base64,...`.")
        text = url[head.end() :]
        base64 = self._extracted.pop(text, None) or text.encode()
        self._bytes_left -= decoded_bytes(len(base64))
        if self._bytes_left < 0:
            message = "The pictures of this request are too large together."
            raise ApiError(reasons.ERROR_REASON_REQUEST_TOO_LARGE, message, param=param)
        mime_type = _mime_type(param, base64)
        return Picture(base64=base64.decode("ascii"), mime_type=mime_type)


def _mime_type(param: str, base64: bytes) -> str:
    """The media type that the bytes tell."""
    try:
        mime_type = media_type(checked_head(base64))
    except ValueError:
        raise _bad(param, "The picture is not in base64 with padding.") from None
    if mime_type not in ACCEPTED:
        raise _bad(param, "The picture is not a PNG, JPEG, GIF or WebP.")
    return mime_type


def _bad(param: str, message: str) -> ApiError:
    return ApiError(reasons.ERROR_REASON_INVALID_IMAGE, message, param=param)
