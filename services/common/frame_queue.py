"""Frames of a relay that wait to be sent, in messages of limited size (`relay_service.proto`)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

M = TypeVar("M")

MESSAGE_BYTES = 1024 * 1024
"""Size of a message with several frames: far below gRPC's limit, which would end the stream."""

RESPONSE_BYTES_MAX = 32 * 2**20
"""The largest message of an answer. A larger one would exceed gRPC's limit and end the stream."""

PIECE_BYTES = 768 * 1024
"""Size of a piece of a large message of an answer."""

FRAME_BYTES = 512
"""Size of a frame without a message, such as that of a failure with its details."""

MESSAGES_MAX = 4
"""Messages that wait to be sent before a sender of requests has to wait, too."""


class FrameQueue(Generic[M]):
    """Collects the frames of two turns of the event loop into as few messages as possible."""

    def __init__(self, new_message: Callable[[], M]) -> None:
        self._new_message: Callable[[], Any] = new_message
        self._messages: deque[Any] = deque([new_message()])
        self._last_bytes = 0
        self._is_empty = True
        self.has_news = asyncio.Event()
        """Set when there is something to send, or by others to have the queue looked at."""
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._became_short = asyncio.Event()

    @property
    def is_short(self) -> bool:
        """Whether the frames that wait are those of one message at most."""
        return len(self._messages) == 1

    def add(self, call_id: int, size: int = 0) -> Any:
        """Return a new frame of this call, to be filled in now with `size` bytes at most."""
        size += FRAME_BYTES
        if self._last_bytes + size > MESSAGE_BYTES and self._last_bytes:
            self._messages.append(self._new_message())
            self._last_bytes = 0
            if len(self._messages) > MESSAGES_MAX:
                self._has_room.clear()
        self._last_bytes += size
        return self._last().frames.add(call_id=call_id)

    async def wait_for_news(self) -> None:
        """Wait until there is something to send, and for what the next turn of the loop adds.

        A message of gRPC costs far more than a frame in it: see the figures for `split` of
        `python -m tests.bench.gateway --cells json_c32`.
        """
        await self.has_news.wait()
        self.has_news.clear()
        await asyncio.sleep(0)

    async def wait_for_room(self) -> None:
        """Wait while too many messages are not sent: their receiver is slow."""
        await self._has_room.wait()

    async def wait_until_short(self) -> None:
        """Wait until the frames so far are sent but for those of one message."""
        self._became_short.clear()
        await self._became_short.wait()

    def set_flag(self, name: str) -> None:
        """Set a flag of the last message."""
        setattr(self._last(), name, True)

    def send_empty(self) -> None:
        """Send a message also if there are no frames."""
        self._last()

    def take(self) -> M | None:
        """Return the next message; None: there is nothing to send."""
        if self._is_empty:
            return None
        message: M = self._messages.popleft()
        waiting = len(self._messages)
        if waiting <= MESSAGES_MAX:
            self._has_room.set()
        if waiting <= 1:
            self._became_short.set()
        if not waiting:
            self._messages.append(self._new_message())
            self._last_bytes, self._is_empty = 0, True
        return message

    def _last(self) -> Any:
        if self._is_empty:
            self._is_empty = False
            self.has_news.set()
        return self._messages[-1]
