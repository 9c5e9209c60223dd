"""One call of a relay: started by its edge, run by the core, answered in frames."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial

from pomogator.relay.v1 import relay_service_pb2 as pb

from services.admission.interrupt import CallInterrupt
from services.common.call_names import RELAY_WINDOW_BYTES, REQUEST_ID_HEADER
from services.common.contract.relay_codec import RelayCodec
from services.common.frame_queue import PIECE_BYTES, RESPONSE_BYTES_MAX, FrameQueue
from services.common.request_headers import request_id_or_new
from services.completions.completions import Completions
from services.completions.servicer import call_options, reading
from services.domain.call_options import CallOptions
from services.domain.error_reason import ErrorReason
from services.domain.spec import CompletionRequest
from services.errors import Failure
from services.rpc.failure_border import RETRY_AFTER_S, to_failure
from services.rpc.large_requests import LargeRequest, decoded


class RelayedCall:
    """Runs a call of a relay, and sends its frames."""

    def __init__(
        self,
        completions: Completions,
        codec: RelayCodec,
        number: int,
        start: pb.CallStart,
        frames: FrameQueue[pb.RelayResponse],
    ) -> None:
        """`number` is that of the call in its stream, which sends `frames`."""
        self._completions = completions
        self._codec = codec
        self._number = number
        self._frames = frames
        # The start itself would keep all frames of its message in memory.
        self._method = start.method
        self._request = start.request
        self._timeout_s = start.timeout_seconds
        self._metadata = dict(start.metadata)
        self._request_id = request_id_or_new(self._metadata.get(REQUEST_ID_HEADER))
        self._headers: dict[str, str] = {}
        self._room_bytes = RELAY_WINDOW_BYTES
        self._room_waiter: asyncio.Future[None] | None = None

    def add_room(self, size: int) -> None:
        """Let so many more bytes of responses be sent.

        Raises Failure where they are more than have been sent: answers would wait here unread.
        """
        if not 0 < size <= RELAY_WINDOW_BYTES - self._room_bytes:
            message = f"The credit of call {self._number} is not what it has read."
            raise Failure(ErrorReason.INVALID_FIELD, message)
        self._room_bytes += size
        if self._room_waiter is not None and not self._room_waiter.done():
            self._room_waiter.set_result(None)

    async def run(self) -> None:
        """Run the call to its end, of which a frame tells, whatever has ended it."""
        try:
            if self._method == pb.RELAYED_METHOD_STREAM_CHAT_COMPLETION:
                await self._stream()
            elif self._method == pb.RELAYED_METHOD_CREATE_CHAT_COMPLETION:
                await self._answer()
            else:
                self._fail(Failure(ErrorReason.NOT_IMPLEMENTED, "The service has no such method."))
        except Exception as error:  # noqa: BLE001 - the border: every failure becomes a status
            self._fail(to_failure(error, self._request_id))
        except asyncio.CancelledError:
            # Not only the edge cancels: a step of the call may have been cancelled within.
            message = "The service dropped the call. Please try again."
            self._fail(
                Failure(ErrorReason.SERVICE_UNAVAILABLE, message, retry_after_s=RETRY_AFTER_S)
            )
            raise

    def _fail(self, failure: Failure) -> None:
        frame = self._frames.add(self._number)
        frame.ended = True
        frame.failure.CopyFrom(failure.to_status())
        frame.trailers.update(failure.headers)

    async def _answer(self) -> None:
        interrupt = CallInterrupt.after(self._timeout_s)
        request = await self._read()
        completion = await self._completions.whole(
            request, self._options(), self._headers, interrupt
        )
        response = self._codec.encode_completion(completion)
        if len(response) > PIECE_BYTES:
            with interrupt:
                response = await self._send_pieces(response)
        self._send(response, ended=True)

    async def _stream(self) -> None:
        interrupt = CallInterrupt.after(self._timeout_s)
        request = await self._read()
        stream = self._completions.stream(request, self._options(), self._headers, interrupt)
        del request  # It may be large, and the stream long.
        encode = self._codec.encode_batch
        async with aclosing(stream) as batches:
            async for batch in batches:
                response = encode(batch)
                if len(response) > PIECE_BYTES:
                    with interrupt:
                        response = await self._send_pieces(response)
                self._send(response)
                # Before the next batch is read, so that no batch waits here.
                if self._room_bytes <= 0:
                    with interrupt:
                        await self._wait_for_room()
        self._send(b"", ended=True)

    async def _read(self) -> CompletionRequest:
        encoded = LargeRequest(self._request, self._codec.parse_request)
        self._request = b""
        return await decoded(encoded, partial(reading, self._codec.read_request))

    def _options(self) -> CallOptions:
        return call_options(self._request_id, self._metadata)

    async def _wait_for_room(self) -> None:
        while self._room_bytes <= 0:
            self._room_waiter = asyncio.get_running_loop().create_future()
            await self._room_waiter

    async def _send_pieces(self, response: bytes) -> bytes:
        """Send a large message but for its last piece, and return that."""
        if len(response) > RESPONSE_BYTES_MAX:
            raise Failure(ErrorReason.UPSTREAM_BAD_RESPONSE, "The answer is too large.")
        last = (len(response) - 1) // PIECE_BYTES * PIECE_BYTES
        for start in range(0, last, PIECE_BYTES):
            frame = self._frames.add(self._number, PIECE_BYTES)
            frame.response = response[start : start + PIECE_BYTES]
            frame.continued = True
            await self._frames.wait_until_short()
        self._room_bytes -= last
        return response[last:]

    def _send(self, response: bytes, *, ended: bool = False) -> None:
        frame = self._frames.add(self._number, len(response))
        frame.response = response
        frame.ended = ended
        self._room_bytes -= len(response)
        if self._headers:
            frame.headers.update(self._headers)
            self._headers.clear()
