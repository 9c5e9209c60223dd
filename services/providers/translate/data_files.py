"""Files by value: data URLs taken apart."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import pybase64

from services.common.image_format import checked
from services.providers.translate.parameters import require

_TEXT_TYPES = frozenset(
    {
        *("application/json", "application/xml", "application/javascript", "application/yaml"),
        *("application/x-yaml", "application/toml", "application/sql", "application/x-sh"),
    }
)
"""Media types of texts besides `text/…`, `…+json` and `…+xml`."""


class DataFile(NamedTuple):
    """A PDF, or a text."""

    mime_type: str
    """In lower case, without parameters."""
    base64: bytes
    """With padding."""

    def text(self) -> str:
        """Return the file as text. Raises UNSUPPORTED_FEATURE unless it is UTF-8."""
        try:
            return pybase64.b64decode(self.base64).decode("utf-8-sig")
        except UnicodeDecodeError:
            require(False, "messages", "text files that are not UTF-8")
            raise


def data_file(uri: str) -> DataFile | None:
    """Return the file in a data URL. None: it is not one, or of another type."""
    head, comma, data = uri.partition(",")
    if not comma or head[:5].lower() != "data:":
        return None
    mime_type, *parameters = (part.strip().lower() for part in head[5:].split(";"))
    mime_type = mime_type or "text/plain"
    if mime_type != "application/pdf" and not _is_text(mime_type):
        return None
    if "base64" not in parameters:
        return DataFile(mime_type, pybase64.b64encode(unquote_to_bytes(data)))
    try:
        base64, _ = checked(data.encode())
    except ValueError:
        return None
    return DataFile(mime_type, base64)


def _is_text(mime_type: str) -> bool:
    return mime_type.startswith("text/") or (
        mime_type in _TEXT_TYPES or mime_type.endswith(("+json", "+xml", "+yaml"))
    )
