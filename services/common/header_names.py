"""Names of HTTP headers: their form, and those that only the HTTP client itself may send."""

from __future__ import annotations

import re

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token: https://www.rfc-editor.org/rfc/rfc9110#section-5.1."""

RESERVED_HEADERS = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding"}
    | {"expect", "proxy-connection", "upgrade"}
)
"""Headers that frame the message or control the connection, in lower case."""
