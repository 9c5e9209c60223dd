"""A channel that is opened anew when what it was opened with has changed.

gRPC reads a client's certificate once. Here the next call after a change goes over a new
channel; those that run end on the old one.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

_log = logging.getLogger(__name__)

LOOK_S = 10.0
"""How often is looked for a change. Kubernetes takes up to a minute to replace files."""

LEAVE_S = 1860.0
"""How long calls on the old channel may go on: longer than any call may take."""


class FollowingChannel(grpc.aio.Channel):
    """Looks like the channels that it opens. Use it as a context: it runs a task."""

    def __init__(
        self,
        open_channel: Callable[[], grpc.aio.Channel],
        version: Callable[[], object],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        """Both functions raise OSError where files cannot be used, and nothing changes then.

        `version` gives another value once there is something new. At the start errors pass.
        """
        self._open = open_channel
        self._version = version
        self._look_s = look_s
        self._seen = version()
        self.current = open_channel()
        """Where calls go."""
        self._looking: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look(), name="certificates")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel, and the old ones at once."""
        tasks = [*self._leaving, *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.current.close(grace)

    def follow(self) -> None:
        """Opens the channel anew if there is something new."""
        try:
            version = self._version()
            if version == self._seen:
                return
            self._seen = version
            latest = self._open()
        except OSError as error:
            _log.warning("tls.not_reloaded", extra={"reason": str(error)})
            return
        leaving = asyncio.create_task(self.current.close(LEAVE_S), name="old channel")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        self.current = latest
        _log.info("tls.reloaded", extra={"certificate": "of the edge"})

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            self.follow()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Of the current channel."""
        return self.current.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Of the current channel."""
        await self.current.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Of the current channel."""
        await self.current.channel_ready()

    # The types of gRPC's stubs say nothing of the flags that generated code passes.
    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return _Method(self, lambda channel: channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return _Method(self, lambda channel: channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return _Method(self, lambda channel: channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return _Method(self, lambda channel: channel.stream_stream(*args, **kwargs))


def follow_on_hangup(channel: grpc.aio.Channel) -> None:
    """On SIGHUP looks for something new at once, where there can be any; it ends nothing."""
    act = channel.follow if isinstance(channel, FollowingChannel) else _ignore
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, act)


def _ignore() -> None:
    """There is nothing to read anew."""


class _Method:
    """A method of whichever channel is the current one."""

    __slots__ = ("_channel", "_make", "_method", "_of")

    def __init__(
        self, channel: FollowingChannel, make: Callable[[grpc.aio.Channel], Callable[..., Any]]
    ) -> None:
        self._channel = channel
        self._make = make
        self._of = channel.current
        self._method = make(channel.current)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._of is not self._channel.current:
            self._of = self._channel.current
            self._method = self._make(self._of)
        return self._method(*args, **kwargs)
