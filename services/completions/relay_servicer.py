"""The internal gRPC method `Relay`: completions of edges, many calls over one stream.

A response carries the frames of all calls of two turns of the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from functools import partial

from pomogator.relay.v1 import relay_service_pb2 as pb
from pomogator.relay.v1 import relay_service_pb2_grpc as pb_grpc

from services.common.call_names import (
    CREDIT_HEADER,
    INSTANCE_HEADER,
    RELAYED_BYTES_MAX,
    STRUCTS_HEADER,
)
from services.common.contract.relay_codec import MESSAGES, STRUCTS, RelayCodec, structs_version
from services.common.frame_queue import FrameQueue
from services.common.request_headers import new_request_id
from services.completions.completions import Completions
from services.completions.relayed_call import RelayedCall
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc.call_context import Context, metadata_of

REQUEST_BYTES_MAX = 2 * RELAYED_BYTES_MAX
"""The largest request that a relay may bring. Edges of this release send no more than half of it;
older ones measured it as JSON."""

CREDIT_MESSAGES = 2
"""The most messages that an edge may send before the service has read them. Load shedding does not
see the calls in unread messages: `tests/bench/RESULTS.md`, "Faults and time"."""

MOVE_TIMEOUT_S = 2.0
"""Longest wait of a shutdown for edges to start their calls elsewhere."""


class RelayServicer(pb_grpc.RelayServiceServicer):
    """Runs the calls of edges."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions
        self._instance = new_request_id()
        self._streams: set[RelayStream] = set()
        self._shutting_down = False

    async def Relay(
        self, request_iterator: AsyncIterator[pb.RelayRequest], context: Context
    ) -> AsyncIterator[pb.RelayResponse]:
        """Carry the calls of one edge."""
        version = structs_version()
        has_structs = metadata_of(context).get(STRUCTS_HEADER) == version
        await context.send_initial_metadata(
            (
                (INSTANCE_HEADER, self._instance),
                (STRUCTS_HEADER, version),
                (CREDIT_HEADER, str(CREDIT_MESSAGES)),
            )
        )
        stream = RelayStream(self._completions, STRUCTS if has_structs else MESSAGES)
        self._streams.add(stream)
        if self._shutting_down:
            stream.shut_down()
        reading = asyncio.create_task(stream.read(request_iterator), name="relay")
        try:
            while (response := await stream.next_response()) is not None:
                yield response
        finally:
            self._streams.discard(stream)
            reading.cancel()
            await asyncio.gather(reading, *stream.cancel_calls(), return_exceptions=True)

    async def move_clients_away(self) -> None:
        """Have edges start their next calls elsewhere. Return when they do."""
        self._shutting_down = True
        for stream in self._streams:
            stream.shut_down()
        moving = [asyncio.ensure_future(stream.left.wait()) for stream in self._streams]
        if moving:
            await asyncio.wait(moving, timeout=MOVE_TIMEOUT_S)
        for each in moving:
            each.cancel()


class RelayStream:
    """Calls of one edge in flight, and the frames that wait to be sent to it."""

    def __init__(self, completions: Completions, codec: RelayCodec) -> None:
        self._completions = completions
        self._codec = codec
        self._calls: dict[int, tuple[RelayedCall, asyncio.Task[None]]] = {}
        self._frames = FrameQueue(pb.RelayResponse)
        self._messages_read = 0
        """Messages that the edge has no new credit for yet."""
        self._is_read = False
        self._failure: Failure | None = None
        self.left = asyncio.Event()
        """Set when the edge starts no more calls here."""

    def shut_down(self) -> None:
        """Ask the edge to start its next calls elsewhere."""
        self._frames.set_flag("shutting_down")

    async def read(self, requests: AsyncIterator[pb.RelayRequest]) -> None:
        """Take in the frames of the edge, to the end of its side."""
        try:
            async for request in requests:
                for frame in request.frames:
                    self._receive(frame)
                self._messages_read += 1
                # An edge may have no credit left, or wait for a sign of life.
                if self._messages_read == CREDIT_MESSAGES or not request.frames:
                    self._frames.send_empty()
                # Answers that are not read keep the service from reading further calls.
                await self._frames.wait_for_room()
                if request.leaving:
                    self.left.set()
        except Failure as failure:
            self._failure = failure
        finally:
            self._is_read = True
            self.left.set()
            self._frames.has_news.set()

    async def next_response(self) -> pb.RelayResponse | None:
        """Return the next frames or credit, once there are any; None: all is over.

        Raises Failure where the edge has broken the contract.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            if (response := self._frames.take()) is not None:
                response.credit_messages, self._messages_read = self._messages_read, 0
                return response
            if self._is_read and not self._calls:
                return None
            await self._frames.wait_for_news()

    def cancel_calls(self) -> list[asyncio.Task[None]]:
        """Cancel the calls in flight, and return their tasks."""
        tasks = [task for _, task in self._calls.values()]
        for task in tasks:
            task.cancel()
        return tasks

    def _receive(self, frame: pb.EdgeFrame) -> None:
        number, kind = frame.call_id, frame.WhichOneof("frame")
        if kind == "start":
            if number in self._calls:
                raise Failure(ErrorReason.INVALID_FIELD, f"Call {number} was started twice.")
            if math.isnan(frame.start.timeout_seconds):
                raise Failure(
                    ErrorReason.INVALID_FIELD, f"The timeout of call {number} is no number."
                )
            if len(frame.start.request) > REQUEST_BYTES_MAX:
                raise Failure(ErrorReason.INVALID_FIELD, f"Call {number} is too large for a relay.")
            call = RelayedCall(self._completions, self._codec, number, frame.start, self._frames)
            task = asyncio.create_task(call.run(), name="relayed call")
            self._calls[number] = call, task
            task.add_done_callback(partial(self._forget, number))
        elif number in self._calls:
            call, task = self._calls[number]
            if kind == "credit_bytes":
                call.add_room(frame.credit_bytes)
            elif kind == "cancelled":
                task.cancel()

    def _forget(self, number: int, _: asyncio.Task[None]) -> None:
        del self._calls[number]
        if self._is_read and not self._calls:
            self._frames.has_news.set()
