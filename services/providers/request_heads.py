"""Heads of requests, which are made once for each target."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, urlencode

from services.config import ChannelConfig
from services.providers.base import ProviderApi, Target, UpstreamRequest
from services.providers.http import HttpError, HttpErrorKind, PostHead, Url

USER_AGENT = "pomogator"
HEADS_MAX = 64
"""Heads that are kept for a target: of each path, kind of answer and headers of a request."""

_ACCEPT = {True: "text/event-stream", False: "application/json"}


def new_head(
    kind: tuple[object, ...], request: UpstreamRequest, target: Target, api: ProviderApi
) -> PostHead:
    """Return the head of a request, which is kept with the target as `kind`.

    Headers of the request override configured ones, and those the general. Raises HttpError
    (BAD_REQUEST) if the channel has an address or a header that cannot be sent.
    """
    channel, key = target.channel, target.key.reveal()
    try:
        path, _, query = path_with_query(channel, request.path).partition("?")
        url = Url.parse(channel.base_url).with_tls(channel.tls).join(path)._replace(query=query)
    except ValueError:
        raise HttpError(HttpErrorKind.BAD_REQUEST, "the base URL is not a URL") from None
    headers = {
        "content-type": "application/json",
        "accept": _ACCEPT[request.streamed],
        "accept-encoding": "identity",
        "user-agent": USER_AGENT,
    }
    auth = api.auth_headers(key).items() if key else ()
    specific = (*auth, *configured_headers(channel), *request.headers.items())
    headers |= {name.lower(): value for name, value in specific}
    if len(target.heads) >= HEADS_MAX:
        target.heads.clear()
    head = target.heads[kind] = PostHead(url, headers)
    return head


def path_with_query(channel: ChannelConfig, path: str) -> str:
    """Return a path below the base URL with the channel's query."""
    if not channel.query:
        return path
    return f"{path}{'&' if '?' in path else '?'}{urlencode(channel.query, quote_via=quote)}"


def configured_headers(channel: ChannelConfig) -> Iterable[tuple[str, str]]:
    """Return the channel's own headers, secret ones included."""
    if not channel.secret_headers:
        return channel.headers.items()
    secret = ((name, value.reveal()) for name, value in channel.secret_headers)
    return (*channel.headers.items(), *secret)
