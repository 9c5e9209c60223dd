"""HTTP/1.1 client for streamed responses of providers.

A general client was the largest cost of every streamed token; `python -m tests.bench.http_client`
compares.

Modules, in the order in which data flows:

    client                 connection pools of all origins, each made at its first use
    request                URL and head of a request
    proxy                  forward proxies of the environment
    pool                   connections to one origin: `send`, limit and reuse
    upstream_connection    one socket, one exchange at a time, the parser's callbacks
    response               status, headers and buffered body of a response, and its reader's future
    decompressor           compressed bodies, within bounds
    errors                 kinds of failures
"""

from __future__ import annotations

from services.providers.http.client import HttpClient
from services.providers.http.errors import HttpError, HttpErrorKind
from services.providers.http.proxy import Proxies, Proxy
from services.providers.http.request import PostHead, Url
from services.providers.http.response import HttpResponse

__all__ = [
    "HttpClient",
    "HttpError",
    "HttpErrorKind",
    "HttpResponse",
    "PostHead",
    "Proxies",
    "Proxy",
    "Url",
]
