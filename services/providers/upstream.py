"""Client of the providers' APIs: sends the requests that dialects have encoded."""

from __future__ import annotations

import math
from functools import partial
from typing import Protocol

from services.clock import Clock
from services.errors import UpstreamError
from services.providers.base import Decoder, ProviderApi, Target, UpstreamRequest
from services.providers.channel_failures import ChannelFailures
from services.providers.http import (
    HttpClient,
)
from services.providers.timeouts import Timeouts
from services.providers.upstream_answer import UpstreamAnswer


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
        on_failure = partial((failures or self._failures).add, target)
        return UpstreamAnswer(self._http, request, target, api, decoder, timeouts, on_failure)
