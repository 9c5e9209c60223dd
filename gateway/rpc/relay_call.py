"""Call over a link of a relay, as the edge waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

from pomogator.relay.v1 import relay_service_pb2 as pb

from gateway.backend import CallOptions
from gateway.errors import ApiError, internal
from gateway.rpc.call_metadata import response_headers
from gateway.rpc.status_mapping import deadline_passed, service_error
from services.common.call_names import RELAY_WINDOW_BYTES

CREDIT_BYTES_MIN = RELAY_WINDOW_BYTES // 2
"""The fewest bytes of credit that are sent in a frame."""


class ReceivedFrame(NamedTuple):
    """Frame of the service, without its message, which holds the frames of other calls, too."""

    response: bytes
    """Message of the method, serialized; or empty."""
    ended: bool
    """Whether the call is over."""
    headers: Mapping[str, str]
    """Headers for the client."""
    error: ApiError | None
    """The failure of the call."""


class RelayCall:
    """A call in flight. Use it as a context: it ends there."""

    __slots__ = (
        "_error",
        "_forget",
        "_frames",
        "_has_ended",
        "_new_frame",
        "_pieces",
        "_read_bytes",
        "_timer",
        "_waiter",
        "request_id",
    )

    def __init__(
        self,
        options: CallOptions,
        new_frame: Callable[[], pb.EdgeFrame],
        forget: Callable[[], None],
    ) -> None:
        """`new_frame` returns a frame that will be sent; `forget` is called at the end."""
        self.request_id = options.request_id
        self._new_frame = new_frame
        self._forget = forget
        self._frames: deque[ReceivedFrame] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: ApiError | None = None
        self._has_ended = False
        self._pieces: list[bytes] = []
        self._read_bytes = 0
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(options.deadline_s, self.fail, deadline_passed())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if not self._has_ended:
            self._new_frame().cancelled = True
        self._forget()

    def receive(self, frame: pb.ServiceFrame) -> None:
        """Take in a frame of the service."""
        response = frame.response
        if frame.continued:
            self._pieces.append(response)
            return
        if self._pieces:
            response = b"".join((*self._pieces, response))
            self._pieces.clear()
        if frame.ended:
            self._has_ended = True
        error = None
        if frame.HasField("failure"):
            trailers = dict(frame.trailers)
            error = service_error(frame.failure, trailers.items()) or internal(self.request_id)
        headers = response_headers(frame.headers.items()) if frame.headers else {}
        self._frames.append(ReceivedFrame(response, frame.ended, headers, error))
        self._wake()

    def fail(self, error: ApiError) -> None:
        """End the call with an error, after the frames that have arrived."""
        self._error = self._error or error
        self._wake()

    async def next_frame(self) -> ReceivedFrame:
        """Return the next frame. Raises ApiError where the call has failed."""
        while not self._frames:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        frame = self._frames.popleft()
        if frame.error is not None:
            raise frame.error
        self._return_credit(len(frame.response))
        return frame

    def _return_credit(self, size: int) -> None:
        self._read_bytes += size
        if self._read_bytes >= CREDIT_BYTES_MIN and not self._has_ended:
            self._new_frame().credit_bytes = self._read_bytes
            self._read_bytes = 0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
