"""Why an exchange with a server fails."""

from __future__ import annotations

from enum import Enum, auto


class HttpErrorKind(Enum):
    """What went wrong, and so how far the request came."""

    BAD_REQUEST = auto()
    """Nothing was sent: the address or a header cannot be written as HTTP."""
    DNS = auto()
    """Nothing was sent: the host's name has no address."""
    UNREACHABLE = auto()
    """Nothing was sent: nobody took the connection."""
    TLS = auto()
    """Nothing was sent: the server could not prove who it is, or does not speak TLS."""
    TIMEOUT = auto()
    """Nothing was sent: there was no connection in time."""
    DISCONNECTED = auto()
    """The connection ended before the response did."""
    BAD_RESPONSE = auto()
    """The server said something that is not HTTP, or more than is allowed."""


class HttpError(Exception):
    """An exchange failed. The text is for logs: it may name hosts, never headers or bodies."""

    def __init__(self, kind: HttpErrorKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
