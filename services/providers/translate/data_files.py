"""Files by value: data URLs taken apart, and their base64 repaired."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import pybase64

from services.common.image_format import checked

_NO_TEXT = ("image/", "audio/", "video/", "font/")
"""Media types of files that are no text, whatever their bytes are."""


_FAULTS = (" ", "\t", "\r", "\n", "-", "_")
"""Characters of base64 that has line breaks, or the alphabet for URLs."""


class DataFile(NamedTuple):
    """A file that may be a PDF, or a text of any type: few clients know the types of texts."""

    mime_type: str
    """In lower case, without parameters."""
    base64: bytes
    """With padding."""

    def text(self) -> str:
        """Return the file as text. Raises ValueError unless it is one, in UTF-8."""
        text = pybase64.b64decode(self.base64).decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("a text has no NUL")
        return text


def data_file(uri: str) -> DataFile | None:
    """Return the file in a data URL. None: it is not one, or of another type."""
    head, comma, data = uri.partition(",")
    if not comma or head[:5].lower() != "data:":
        return None
    mime_type, *parameters = (part.strip().lower() for part in head[5:].split(";"))
    if mime_type.startswith(_NO_TEXT):
        return None
    if "base64" not in parameters:
        return DataFile(mime_type, pybase64.b64encode(unquote_to_bytes(data)))
    try:
        base64, _ = checked(data.encode())
    except ValueError:
        return None
    return DataFile(mime_type, base64)


def repaired(base64: str) -> str:
    """Return base64 without white space, with padding and in the usual alphabet.

    Text that is no base64 stays as it is: what a provider takes is for the provider to say.
    """
    if len(base64) % 4 == 0 and not any(fault in base64 for fault in _FAULTS):
        return base64
    try:
        return checked(base64.encode())[0].decode()
    except ValueError:
        return base64


def repaired_uri(uri: str) -> str:
    """Return a URL with its base64 repaired, if it is a data URL that has any."""
    head, comma, data = uri.partition(",")
    if head[:5].lower() != "data:" or not head.lower().endswith(";base64"):
        return uri
    return f"{head}{comma}{repaired(data)}"
