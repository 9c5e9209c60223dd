"""An HTTP/1.1 client of few parts, for calls whose answers stream.

    request       what is sent: the address, the head
    incoming      what has arrived of a response; the reader's single future
    connection    one socket, one exchange at a time, the parser's callbacks
    inflate       compressed bodies, within bounds
    pool          the connections to one origin
    client        all of that behind `post` and `send`

Why not a general client: on the path of every streamed token it was the largest cost
(`tests/bench/http_client.py` compares).
"""

from __future__ import annotations

from services.providers.http.client import HttpClient, HttpResponse, tls_context
from services.providers.http.errors import HttpError, HttpErrorKind
from services.providers.http.request import PostHead, Url

__all__ = [
    "HttpClient",
    "HttpError",
    "HttpErrorKind",
    "HttpResponse",
    "PostHead",
    "Url",
    "tls_context",
]
