"""Endpoint: a method and path whose requests are answered through an `Exchange`.

The fast path and aiohttp's router serve the same endpoints.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.http.error_answer import ErrorRenderer
from gateway.http.exchange import Exchange
from gateway.telemetry.request_observer import RequestTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(RequestTarget):
    """A method and literal path, with their handler and the forms of keys and errors."""

    credential_headers: Sequence[str]
    """The headers that may carry the key; the first of them that a request has counts."""
    handle: Callable[[Exchange], Awaitable[Awaitable[None] | None]]
    """Answers one request, but for the stream that it returns, if any: that is awaited next, and
    keeps nothing of the request in memory. ApiError where it fails before anything was sent."""
    render_error: ErrorRenderer
