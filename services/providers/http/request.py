"""URL and head of a POST request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from services.common.header_names import HEADER_NAME, RESERVED_HEADERS
from services.common.tls import UpstreamTls
from services.providers.http.errors import HttpError, HttpErrorKind

_PORTS = {"http": 80, "https": 443}
_TARGET_SAFE = "/%:@!$&'()*+,;=-._~"


class Origin(NamedTuple):
    """Origin: requests with the same origin may share a connection."""

    host: str
    """ASCII. An IPv6 address has no brackets."""
    port: int
    secure: bool
    """Whether to use TLS."""
    tls: UpstreamTls | None = None
    """Certificates of this origin's own. None: the system's authorities, and no certificate."""


class Url(NamedTuple):
    """URL with the scheme `http` or `https`."""

    origin: Origin
    authority: str
    """The value of the `host` header."""
    path: str
    query: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Parse `text`.

        Raises ValueError on anything but `scheme://host[:port][/path][?query]`: user names and
        fragments have no meaning here, and parsers disagree about spaces and control characters.
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

    def with_tls(self, tls: UpstreamTls | None) -> Url:
        """Return the URL with certificates of its own."""
        return self._replace(origin=self.origin._replace(tls=tls)) if tls else self

    def join(self, path: str) -> Url:
        """Append `path` to the URL's path. The query stays."""
        joined = self.path.rstrip("/") + quote(path, safe=_TARGET_SAFE)
        return self._replace(path=joined)

    @property
    def target(self) -> str:
        """Request target of the first line (RFC 9112, section 3.2)."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path


class PostHead:
    """Head of POST requests that differ only in their bodies."""

    __slots__ = ("_authority", "origin", "text")

    def __init__(self, url: Url, headers: Mapping[str, str]) -> None:
        """Raises HttpError (BAD_REQUEST), without the value, for headers that cannot be sent.

        These could end the head or inject another header, or are among `RESERVED_HEADERS`.
        """
        lines = [f"POST {url.target} HTTP/1.1\r\nhost: {url.authority}\r\n"]
        for name, value in headers.items():
            if (
                not (HEADER_NAME.fullmatch(name) and value.isprintable())
                or name.lower() in RESERVED_HEADERS
            ):
                raise HttpError(HttpErrorKind.BAD_REQUEST, f"the header {name!r} cannot be sent")
            lines.append(f"{name}: {value}\r\n")
        self.text = "".join(lines).encode()
        """Its lines, without the length of the body and the blank line."""
        self._authority = url.authority
        self.origin = url.origin
        """The origin to connect to."""

    def to_proxy(self, fields: str) -> bytes:
        """The text for a forward proxy: with the whole URL, and with these lines of headers."""
        url = f"POST http://{self._authority}".encode()
        return b"%b%b%b" % (url, self.text.removeprefix(b"POST "), fields.encode())


def _ascii(host: str) -> str:
    """Encode a host name for DNS. Raises ValueError, of which UnicodeError is a subclass."""
    return host.encode("idna").decode()
