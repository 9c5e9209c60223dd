"""Frames of a relay that wait to be sent, in messages of limited size (`relay_service.proto`)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

M = TypeVar("M")

MESSAGE_BYTES = 1024 * 1024
"""Size of a message with several frames: far below gRPC's limit, which would end the stream."""


class FrameQueue(Generic[M]):
    """Collects the frames of one turn of the event loop into as few messages as possible."""

    def __init__(self, new_message: Callable[[], M]) -> None:
        self._new_message: Callable[[], Any] = new_message
        self._messages: deque[Any] = deque([new_message()])
        self._last_bytes = 0
        self._is_empty = True
        self.has_news = asyncio.Event()
        """Set when there is something to send, or by others to have the queue looked at."""

    def add(self, call_id: int, size: int = 0) -> Any:
        """Return a new frame of this call, to be filled in now with `size` bytes at most."""
        if self._last_bytes + size > MESSAGE_BYTES and self._last_bytes:
            self._messages.append(self._new_message())
            self._last_bytes = 0
        self._last_bytes += size
        return self._last().frames.add(call_id=call_id)

    def set_flag(self, name: str) -> None:
        """Set a flag of the last message."""
        setattr(self._last(), name, True)

    def take(self) -> M | None:
        """Return the next message; None: there is nothing to send."""
        if self._is_empty:
            return None
        message: M = self._messages.popleft()
        if not self._messages:
            self._messages.append(self._new_message())
            self._last_bytes, self._is_empty = 0, True
        return message

    def _last(self) -> Any:
        self._is_empty = False
        self.has_news.set()
        return self._messages[-1]
