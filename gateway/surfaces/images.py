"""Images in requests: data URLs taken apart, with their base64 unchanged but for repairs.

No image is kept decoded. Its media type comes from its first bytes: the type that a client declares
is often wrong, and some providers refuse an image for that.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.errors import ApiError
from services.common.image_format import checked, checked_head, decoded_bytes, media_type
from services.domain.error_reason import ErrorReason

_HEAD = re.compile(r"data:[^,]{0,256}?;base64,", re.IGNORECASE)

ACCEPTED = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp"}
    | {"image/avif", "image/bmp", "image/heic", "image/heif", "image/tiff"}
)
"""Media types of images. OpenAI's API accepts the first four; the service knows what models do."""


class ImageSource(NamedTuple):
    """An image by reference or by value."""

    uri: str = ""
    """The reference; empty for a value."""
    base64: str = ""
    """The bytes; empty for a reference."""
    mime_type: str = ""
    """The type by the first bytes; empty for a reference."""


class ImageReader:
    """Reader of one request's images, with the limits of their number and size.

    `extracted` has the base64 of `gateway.surfaces.openai_chat.image_extraction`, by stand-in; an
    image that is read is removed from it.
    """

    __slots__ = ("_bytes_left", "_extracted", "_images_left")

    def __init__(
        self, *, images_max: int, bytes_max: int, extracted: dict[str, bytes] | None = None
    ) -> None:
        self._extracted = extracted or {}
        self._images_left = images_max
        self._bytes_left = bytes_max

    def read(self, param: str, url: str) -> ImageSource:
        """Return the image at `url`, the value of the field `param`.

        Raises ApiError: the image is malformed, or exceeds a limit.
        """
        self._count(param)
        if url[:5].lower() != "data:":
            return ImageSource(uri=url)
        prefix = _HEAD.match(url)
        if prefix is None:
            raise _bad(param, "A data URL must have the form `data:image/png;base64,...`.")
        return self._inline(param, url[prefix.end() :])

    def read_base64(self, param: str, text: str) -> ImageSource:
        """Return the image in `text`, the value of the field `param`.

        Raises ApiError: the image is malformed, or exceeds a limit.
        """
        self._count(param)
        return self._inline(param, text)

    def _count(self, param: str) -> None:
        self._images_left -= 1
        if self._images_left < 0:
            raise _bad(param, "There are too many pictures in this request.")

    def _inline(self, param: str, text: str) -> ImageSource:
        extracted = self._extracted.pop(text, None)
        base64 = extracted or text.encode()
        self._bytes_left -= decoded_bytes(len(base64))
        if self._bytes_left < 0:
            message = "The pictures of this request are too large together."
            raise ApiError(ErrorReason.REQUEST_TOO_LARGE, message, param=param)
        try:
            # Base64 that was cut out of the body has not been read as JSON. Bytes that are no
            # base64 could hide the end of the string.
            base64, head = (base64, checked_head(base64)) if extracted else checked(base64)
        except ValueError:
            raise _bad(param, "The picture is not in base64.") from None
        mime_type = media_type(head)
        if mime_type not in ACCEPTED:
            raise _bad(param, "The picture is not a PNG, JPEG, GIF, WebP or another known image.")
        return ImageSource(base64=base64.decode("ascii"), mime_type=mime_type)


def _bad(param: str, message: str) -> ApiError:
    return ApiError(ErrorReason.INVALID_IMAGE, message, param=param)
