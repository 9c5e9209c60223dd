"""Failures of an HTTP exchange."""

from __future__ import annotations

from enum import Enum, auto


class HttpErrorKind(Enum):
    """Kind of failure. It says whether anything was sent."""

    BAD_REQUEST = auto()
    """Nothing was sent: the URL or a header is invalid in HTTP."""
    DNS = auto()
    """Nothing was sent: the host name has no address."""
    UNREACHABLE = auto()
    """Nothing was sent: the connection was refused, or the host is unreachable."""
    TLS = auto()
    """Nothing was sent: the server's certificate was not accepted, or it does not speak TLS."""
    PROXY = auto()
    """Nothing was sent: the forward proxy made no connection to the server."""
    TIMEOUT = auto()
    """Nothing was sent: the connection was not established in time."""
    DISCONNECTED = auto()
    """The connection ended before the response did."""
    BAD_RESPONSE = auto()
    """The response is not HTTP, or exceeds a limit."""


class HttpError(Exception):
    """Failed exchange. The text is for logs: it may name hosts, never headers or bodies."""

    def __init__(self, kind: HttpErrorKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind

    @property
    def cause(self) -> str:
        """The cause for operators, such as `tls: certificate verify failed`."""
        return f"{self.kind.name.lower().replace('_', ' ')}: {self}"
