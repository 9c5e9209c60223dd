"""Pictures in requests: data URLs taken apart, their base64 left as it is.

Nothing is decoded but the first bytes, which say what the picture is: the media type that
a client declares is often wrong, and some providers refuse a picture for that.
"""

from __future__ import annotations

import binascii
import re
import string

from pomogator.chat.v1 import content_pb2 as content
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import ApiError

_HEAD = re.compile(r"data:[^,]{0,256}?;base64,", re.IGNORECASE)
_ALPHABET = (string.ascii_letters + string.digits + "+/").encode()
_SNIFFED_CHARS = 24
_MAGIC: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)


class ImageReader:
    """Reads the pictures of one request, and counts them.

    Raises `ApiError` for a picture that cannot be one, or is one too many.
    """

    __slots__ = ("_bytes_left", "_images_left")

    def __init__(self, *, images_max: int, bytes_max: int) -> None:
        self._images_left = images_max
        self._bytes_left = bytes_max

    def read(self, param: str, url: str) -> content.Image:
        """The picture at `url`, which the field `param` holds. Its detail is not set."""
        self._images_left -= 1
        if self._images_left < 0:
            raise _bad(param, "There are too many pictures in this request.")
        if url[:5].lower() != "data:":
            return content.Image(uri=url)
        head = _HEAD.match(url)
        if head is None:
            raise _bad(param, "A data URL must have the form `data:image/png;base64,...`.")
        base64 = url[head.end() :]
        self._bytes_left -= len(base64) * 3 // 4
        if self._bytes_left < 0:
            message = "The pictures of this request are too large together."
            raise ApiError(reasons.ERROR_REASON_REQUEST_TOO_LARGE, message, param=param)
        _check_alphabet(param, base64)
        return content.Image(base64=base64, mime_type=_sniff(param, base64))


def _check_alphabet(param: str, base64: str) -> None:
    padding = base64[-2:].count("=")
    # Deleting the alphabet at the speed of C takes half the time that a regex does.
    if len(base64) % 4 or len(base64.encode().translate(None, _ALPHABET)) != padding:
        raise _bad(param, "The picture is not in base64 with padding.")


def _sniff(param: str, base64: str) -> str:
    try:
        start = binascii.a2b_base64(base64[:_SNIFFED_CHARS], strict_mode=True)
    except binascii.Error:
        raise _bad(param, "The picture is not in base64 with padding.") from None
    for magic, mime_type in _MAGIC:
        if magic.match(start):
            return mime_type
    raise _bad(param, "The picture is not a PNG, JPEG, GIF or WebP.")


def _bad(param: str, message: str) -> ApiError:
    return ApiError(reasons.ERROR_REASON_INVALID_IMAGE, message, param=param)
