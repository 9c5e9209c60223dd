"""Channel that reconnects when the client certificate of the edge has changed.

gRPC reads a client certificate once. After a change, new calls use a new channel; calls in flight
end on the old one.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any, Self

import grpc

_log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 10.0
"""How often the files are checked. Kubernetes takes up to a minute to replace them."""

OLD_CALLS_TIMEOUT_S = 1860.0
"""How long calls on the old channel may take to end: longer than any call may take."""


class ReconnectingChannel(grpc.aio.Channel):
    """Behaves like the channels that it opens. Use it as a context: it runs a task."""

    def __init__(
        self,
        open_channel: Callable[[], grpc.aio.Channel],
        version: Callable[[], object],
        *,
        check_interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        """`version` returns another value after a change.

        Where one of the functions raises OSError, since the files cannot be used, the channel
        stays. At the start the error is raised.
        """
        self._open = open_channel
        self._version = version
        self._check_interval_s = check_interval_s
        self._current_version = version()
        self.current = open_channel()
        """The channel of new calls."""
        self._checking: asyncio.Task[None] | None = None
        self._closing: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    async def __aenter__(self) -> Self:
        self._checking = asyncio.create_task(self._check_repeatedly(), name="certificates")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close the channel, and the old ones at once."""
        tasks = [*self._closing, *([self._checking] if self._checking else [])]
        for task in tasks:
            task.cancel()
        old = tuple(self._closing.values())
        await asyncio.gather(*tasks, return_exceptions=True)
        # A task that is cancelled before its first step, or while it waits, closes nothing.
        for channel in old:
            await channel.close()
        await self.current.close(grace)

    def reconnect_if_changed(self) -> None:
        """Open a new channel if the version has changed."""
        try:
            version = self._version()
            if version == self._current_version:
                return
            self._current_version = version
            latest = self._open()
        except OSError as error:
            _log.warning("certificate.refused", extra={"reason": str(error)})
            return
        closing = asyncio.create_task(self.current.close(OLD_CALLS_TIMEOUT_S), name="old channel")
        self._closing[closing] = self.current
        closing.add_done_callback(self._closing.pop)
        self.current = latest
        _log.info("certificate.reloaded", extra={"certificate": "of the edge"})

    async def _check_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(self._check_interval_s)
            self.reconnect_if_changed()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the current channel."""
        return self.current.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait for the current channel."""
        await self.current.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait for the current channel."""
        await self.current.channel_ready()

    # gRPC's type stubs lack the flags that generated code passes.
    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return _Method(self, lambda channel: channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return _Method(self, lambda channel: channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return _Method(self, lambda channel: channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return _Method(self, lambda channel: channel.stream_stream(*args, **kwargs))


def reconnect_on_hangup(channel: grpc.aio.Channel) -> None:
    """On SIGHUP, check for changed files at once. SIGHUP never ends the process."""
    act = _ignore
    if isinstance(channel, ReconnectingChannel):
        act = channel.reconnect_if_changed
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, act)


def _ignore() -> None:
    """Do nothing: a plain-text channel has no files."""


class _Method:
    """A method of the current channel, whichever that is."""

    __slots__ = ("_channel", "_made_by", "_make", "_method")

    def __init__(
        self, channel: ReconnectingChannel, make: Callable[[grpc.aio.Channel], Callable[..., Any]]
    ) -> None:
        self._channel = channel
        self._make = make
        self._made_by = channel.current
        self._method = make(channel.current)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._made_by is not self._channel.current:
            self._made_by = self._channel.current
            self._method = self._make(self._made_by)
        return self._method(*args, **kwargs)
