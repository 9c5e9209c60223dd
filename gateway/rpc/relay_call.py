"""Call over a link of a relay, as the edge waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

from pomogator.relay.v1 import relay_service_pb2 as pb

from gateway.errors import ApiError, internal, shutting_down
from gateway.rpc.call_metadata import response_headers
from gateway.rpc.status_mapping import deadline_passed, service_error
from services.common.call_names import RELAY_WINDOW_BYTES
from services.common.frame_queue import FrameQueue
from services.domain.call_options import CallOptions

CREDIT_BYTES_MIN = RELAY_WINDOW_BYTES // 2
"""The fewest bytes of credit that are sent in a frame."""


class RelayCall:
    """A call in flight. Use it as a context: it ends there."""

    __slots__ = (
        "_error",
        "_forget",
        "_frames",
        "_has_ended",
        "_headers",
        "_number",
        "_pieces",
        "_read_bytes",
        "_request_id",
        "_responses",
        "_timer",
        "_waiter",
    )

    def __init__(
        self,
        number: int,
        options: CallOptions,
        headers: dict[str, str],
        frames: FrameQueue[pb.RelayRequest],
        forget: Callable[[int, bool], None],
    ) -> None:
        """`headers` gets those of the service.

        `forget` is called at the end with the number, and whether the service knows of the end.
        """
        self._number = number
        self._headers = headers
        self._frames = frames
        self._forget = forget
        self._request_id = options.request_id
        self._responses: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: ApiError | None = None
        self._has_ended = False
        self._pieces: list[bytes] = []
        self._read_bytes = 0
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(options.deadline_s, self._pass_deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._forget(self._number, self._has_ended)

    @property
    def time_left_s(self) -> float:
        """The seconds until the deadline."""
        return self._timer.when() - asyncio.get_running_loop().time()

    def receive(self, frame: pb.ServiceFrame) -> None:
        """Take in a frame of the service."""
        response = frame.response
        if frame.continued:
            self._pieces.append(response)
            return
        if self._pieces:
            response = b"".join((*self._pieces, response))
            self._pieces.clear()
        if frame.headers:
            self._headers.update(response_headers(frame.headers.items()))
        if response:
            self._responses.append(response)
        if frame.ended:
            self._has_ended = True
            if frame.HasField("failure"):
                trailers = dict(frame.trailers)
                error = service_error(frame.failure, trailers.items())
                self._error = error or internal(self._request_id)
        self._wake()

    def fail(self, error: ApiError) -> None:
        """End the call with an error, after the responses that have arrived, unless all have."""
        if not self._has_ended:
            self._error = self._error or error
            self._wake()

    def shut_down(self) -> None:
        """End the call, since the edge shuts down."""
        self.fail(shutting_down())

    async def next_response(self) -> bytes:
        """Return the next message of the method; empty: there are no more.

        Raises ApiError where the call has failed.
        """
        while not self._responses:
            if self._error is not None:
                raise self._error
            if self._has_ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        response = self._responses.popleft()
        self._read_bytes += len(response)
        if self._read_bytes >= CREDIT_BYTES_MIN and not self._has_ended:
            self._frames.add(self._number).credit_bytes = self._read_bytes
            self._read_bytes = 0
        return response

    def _pass_deadline(self) -> None:
        self.fail(deadline_passed())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
