"""Client of the providers' APIs: sends the requests that dialects have encoded."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Protocol
from urllib.parse import quote, urlencode

from services.clock import Clock
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
HEADS_MAX = 64
"""Heads that are kept for a target: of each path, kind of answer and headers of a request."""

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
        channel, now = target.channel, self._clock.now()
        if request.may_stream:
            first_s = min(first_s, channel.first_token_timeout_s)
        timeouts = Timeouts(
            self._clock, now, first_s, channel.progress_timeout_s, now + channel.total_timeout_s
        )
        send = partial(self._send, request, target, api)
        on_failure = partial((failures or self._failures).add, target)
        return UpstreamAnswer(send, api, decoder, timeouts, on_failure)

    def _send(
        self,
        request: UpstreamRequest,
        target: Target,
        api: ProviderApi,
        on_sent: Callable[[], None],
    ) -> Awaitable[HttpResponse]:
        heads = target.heads
        kind = (api, request.path, request.streamed, *request.headers.items())
        head = heads.get(kind)
        if head is None:
            if len(heads) >= HEADS_MAX:
                heads.clear()
            head = heads[kind] = _head(request, target, api)
        return self._http.send(
            head,
            request.body,
            connect_timeout_s=target.channel.connect_timeout_s,
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


def _head(request: UpstreamRequest, target: Target, api: ProviderApi) -> PostHead:
    """Head of a request. Headers of the request override configured ones, those the general."""
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
    return PostHead(url, headers)
