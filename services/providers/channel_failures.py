"""Failures of channels, for operators: the last one of each target, and each cause once in the log.

Callers get a reason without hosts and without the words of the system or of TLS. Texts of providers
are in neither, since they may quote a caller.
"""

from __future__ import annotations

import logging
from typing import NamedTuple
from urllib.parse import urlsplit

from services.clock import Clock
from services.errors import UpstreamError
from services.providers.base import Target

REPEAT_S = 600.0
"""How long a cause is not logged again for the same channel."""
CAUSES_MAX = 1000
"""Causes that are remembered as logged."""

log = logging.getLogger(__name__)


class ChannelFailure(NamedTuple):
    """One failure."""

    text: str
    """Reason and cause, such as `UPSTREAM_UNREACHABLE (tls: certificate verify failed …)`."""
    time_s: float
    """When it was, in seconds since 1970."""


class ChannelFailures:
    """The last failure of each channel, model and key, as this process has seen them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[tuple[str, str, int], ChannelFailure] = {}
        self._logged_at: dict[tuple[str, str], float] = {}

    def last(self, target: Target) -> ChannelFailure | None:
        """Return the last failure of a target; None: it has not failed yet."""
        return self._last.get(_key_of(target))

    def add(self, target: Target, error: UpstreamError, cause: str = "") -> None:
        """Record a failure, unless the request is at fault, and log it if its cause is new.

        `cause` has the words of the system or of TLS. Without it the status says enough.
        """
        if not error.row.retryable:
            return
        cause = cause or (f"HTTP {error.status}" if error.status else "")
        text = f"{error.reason} ({cause})" if cause else str(error.reason)
        self._last[_key_of(target)] = ChannelFailure(text, self._clock.time())
        now, name = self._clock.now(), target.channel.name
        logged_at = self._logged_at.get((name, text))
        if logged_at is not None and now - logged_at < REPEAT_S:
            return
        if len(self._logged_at) >= CAUSES_MAX:
            self._logged_at.clear()
        self._logged_at[name, text] = now
        fields = {
            "channel": name,
            "host": urlsplit(target.channel.base_url).netloc,
            "status": error.status,
            "reason": str(error.reason),
            "cause": cause,
        }
        log.warning("channel.failed", extra=fields)


def _key_of(target: Target) -> tuple[str, str, int]:
    return target.channel.name, target.public_model, target.key_number
