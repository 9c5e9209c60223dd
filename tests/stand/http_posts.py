"""POST requests of the providers' HTTP client."""

from __future__ import annotations

from collections.abc import Mapping

from services.providers.http import HttpClient, HttpResponse, PostHead, Url


async def send_post(
    client: HttpClient, url: Url, headers: Mapping[str, str], body: bytes, timeout_s: float = 5
) -> HttpResponse:
    """Send a request, and return its response once status and headers have arrived."""
    head = PostHead(url, headers)
    return await client.pools[url.origin].send(head, body, connect_timeout_s=timeout_s)
