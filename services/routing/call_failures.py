"""Failures of one call's attempts, and the one that its caller gets."""

from __future__ import annotations

import msgspec

from services.config import ChannelConfig
from services.domain.error_reason import ErrorReason
from services.errors import Failure, UpstreamError


class CallFailures(msgspec.Struct):
    """The failures of a call's attempts so far."""

    refusal: Failure | None = None
    """The reason for which a target could not be tried."""
    failed_channels: frozenset[str] = frozenset()
    """Channels that failed in a way that would also fail their other keys, by name."""
    late_channels: frozenset[str] = frozenset()
    """Channels that had not begun to answer in time, by name."""
    _error: UpstreamError | None = None

    def add(self, channel: ChannelConfig, error: UpstreamError) -> None:
        """Record a failed attempt."""
        if not error.row.key_fault:
            self.failed_channels |= {channel.name}
        if error.reason is ErrorReason.UPSTREAM_TIMEOUT:
            self.late_channels |= {channel.name}
        if self._error is None or error.row.channel_fault:
            # A channel fault tells the caller more than, say, that a channel lacks the model.
            self._error = error

    def take(self) -> Failure:
        """Remove and return the failure that the caller gets.

        It would be in a cycle with its traceback otherwise, and the call with it.
        """
        error, self._error = self._error, None
        return error or self.refusal or _no_candidate()


def _no_candidate() -> UpstreamError:
    return UpstreamError(ErrorReason.UPSTREAM_UNREACHABLE, "No channel answered.")


def channel_disabled() -> UpstreamError:
    """Return the failure of a call whose channels an operator has disabled."""
    message = "The channels of this model are disabled at the moment."
    return UpstreamError(ErrorReason.UPSTREAM_UNREACHABLE, message)
