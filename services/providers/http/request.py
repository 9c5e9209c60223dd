"""What is sent: an address, and the head of a POST to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from services.providers.http.errors import HttpError, HttpErrorKind

_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET_SAFE = "/%:@!$&'()*+,;=-._~"

OURS = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding"}
    | {"expect", "proxy-connection", "upgrade"}
)
"""Headers that frame the message or steer the connection: callers cannot set them."""


class Origin(NamedTuple):
    """Whom a connection belongs to: requests to the same origin may share one."""

    host: str
    """In ASCII; an IPv6 address is without brackets."""
    port: int
    secure: bool
    """Whether over TLS."""


class Url(NamedTuple):
    """An `http` or `https` address."""

    origin: Origin
    authority: str
    """The value of the `host` header."""
    path: str
    query: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """The address that `text` spells out.

        Raises ValueError on anything but `scheme://host[:port][/path][?query]`: user
        names and fragments have no meaning here, spaces and control characters would
        be taken differently by different readers.
        """
        if not text.isprintable() or " " in text or "\\" in text:
            raise ValueError("An address holds no spaces, backslashes or control characters.")
        parts = urlsplit(text)
        default_port = _PORTS.get(parts.scheme)
        if default_port is None or not parts.hostname:
            raise ValueError("An address starts with http:// or https:// and a host.")
        if "@" in parts.netloc or "#" in text:
            raise ValueError("An address has neither a user name nor a fragment.")
        host = parts.hostname if ":" in parts.hostname else _ascii(parts.hostname)
        port = parts.port or default_port
        shown = f"[{host}]" if ":" in host else host
        return cls(
            origin=Origin(host, port, parts.scheme == "https"),
            authority=shown if port == default_port else f"{shown}:{port}",
            path=quote(parts.path, safe=_TARGET_SAFE),
            query=quote(parts.query, safe=_TARGET_SAFE + "?"),
        )

    def join(self, path: str) -> Url:
        """This address with `path` after its own; the query stays."""
        joined = self.path.rstrip("/") + quote(path, safe=_TARGET_SAFE)
        return self._replace(path=joined)

    @property
    def target(self) -> str:
        """The request target: what stands in the first line."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path


class PostHead:
    """The head of POSTs that differ in nothing but their bodies."""

    __slots__ = ("_text", "origin")

    def __init__(self, url: Url, headers: Mapping[str, str]) -> None:
        """Raises HttpError (BAD_REQUEST), without the value, for headers that cannot be sent.

        They could end the head or begin another, or are among `OURS`.
        """
        lines = [f"POST {url.target} HTTP/1.1\r\nhost: {url.authority}\r\n"]
        for name, value in headers.items():
            if not (_TOKEN.fullmatch(name) and value.isprintable()) or name.lower() in OURS:
                raise HttpError(HttpErrorKind.BAD_REQUEST, f"the header {name!r} cannot be sent")
            lines.append(f"{name}: {value}\r\n")
        self._text = "".join(lines).encode()
        self.origin = url.origin
        """Whom to send it to."""

    def of(self, length: int) -> bytes:
        """The head of a POST of `length` bytes."""
        return b"%bcontent-length: %d\r\n\r\n" % (self._text, length)


def _ascii(host: str) -> str:
    """The host as DNS knows it. Raises ValueError (UnicodeError is one)."""
    return host.encode("idna").decode()
