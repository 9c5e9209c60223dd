"""Client of the providers' APIs: sends the requests that dialects have encoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Protocol
from urllib.parse import quote, urlencode

from services.clock import Clock
from services.common.tls import UpstreamTls
from services.config import ChannelConfig
from services.errors import UpstreamError
from services.providers.base import Decoder, ProviderApi, Target, UpstreamRequest
from services.providers.channel_failures import ChannelFailures
from services.providers.http import (
    HttpClient,
    HttpError,
    HttpErrorKind,
    HttpResponse,
    PostHead,
    Url,
)
from services.providers.timeouts import Timeouts
from services.providers.upstream_answer import UpstreamAnswer

USER_AGENT = "pomogator"
HEADS_MAX = 4096
"""Cached request heads: one for each channel, key and kind of answer."""

_ACCEPT = {True: "text/event-stream", False: "application/json"}


class FailureSink(Protocol):
    """Takes the failures of targets, such as `ChannelFailures`."""

    def add(self, target: Target, error: UpstreamError, cause: str = "") -> None:
        """Take a failure. `cause` has the words of the system or of TLS."""
        ...


class Upstream:
    """Client of the providers' APIs: sends requests and returns the answers as events."""

    def __init__(
        self, http: HttpClient, clock: Clock, failures: ChannelFailures | None = None
    ) -> None:
        """Failures are recorded in `failures`, for operators."""
        self._http = http
        self._clock = clock
        self._failures = failures or ChannelFailures(clock)

    def answer(
        self,
        request: UpstreamRequest,
        target: Target,
        api: ProviderApi,
        decoder: Decoder,
        first_s: float = math.inf,
        *,
        failures: FailureSink | None = None,
    ) -> UpstreamAnswer:
        """Return the answer to `request`, which is sent when the first batch is awaited.

        The answer has to begin within `first_s` and within the channel's timeout of a first event.
        A document that could not be streamed has `first_s` and the channel's total timeout.
        `failures` gets its failures in place of the record for operators.
        """
        channel = target.channel
        of_channel = channel.first_token_timeout_s if request.may_stream else math.inf
        timeouts = Timeouts(self._clock, channel, first_s=min(first_s, of_channel))
        post = partial(self._post, request, target, api)
        on_failure = partial((failures or self._failures).add, target)
        return UpstreamAnswer(post, api, decoder, timeouts, on_failure)

    async def _post(
        self,
        request: UpstreamRequest,
        target: Target,
        api: ProviderApi,
        on_sent: Callable[[], None],
    ) -> HttpResponse:
        channel = target.channel
        head = _head(
            (channel.base_url, channel.tls),
            path_with_query(channel, request.path),
            request.streamed,
            api.auth_headers,
            target.key.reveal(),
            (*configured_headers(channel), *request.headers.items()),
        )
        return await self._http.send(
            head,
            request.body,
            connect_timeout_s=channel.connect_timeout_s,
            on_sent=on_sent,
        )


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


@lru_cache(maxsize=HEADS_MAX)
def _head(
    base: tuple[str, UpstreamTls | None],
    path: str,
    streamed: bool,
    auth_headers: Callable[[str], Mapping[str, str]],
    key: str,
    more: tuple[tuple[str, str], ...],
) -> PostHead:
    """Request head of a channel. Configured headers override the general ones."""
    base_url, tls = base
    try:
        path, _, query = path.partition("?")
        url = Url.parse(base_url).with_tls(tls).join(path)._replace(query=query)
    except ValueError:
        raise HttpError(HttpErrorKind.BAD_REQUEST, "the base URL is not a URL") from None
    headers = {
        "content-type": "application/json",
        "accept": _ACCEPT[streamed],
        "accept-encoding": "identity",
        "user-agent": USER_AGENT,
    }
    specific = (*auth_headers(key).items(), *more) if key else more
    headers |= {name.lower(): value for name, value in specific}
    return PostHead(url, headers)
