"""Link of a relay: one stream to one service, which carries many calls.

A message carries the frames of all calls of two turns of the event loop, or of the time in which
the service gives no credit for another message.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, Self, TypeAlias

import grpc
from pomogator.relay.v1 import relay_service_pb2 as pb
from pomogator.relay.v1.relay_service_pb2_grpc import RelayServiceStub

from gateway.errors import shutting_down
from gateway.rpc.call_metadata import completion_metadata
from gateway.rpc.relay_call import RelayCall
from gateway.rpc.status_mapping import broken_link, unreachable
from services.common.call_names import CREDIT_HEADER, INSTANCE_HEADER, STRUCTS_HEADER
from services.common.contract.relay_codec import MESSAGES, STRUCTS, RelayCodec, structs_version
from services.common.frame_queue import FrameQueue
from services.domain.call_options import CallOptions

UnsentStart: TypeAlias = tuple[pb.RelayedMethod.ValueType, bytes, Sequence[tuple[str, str]]]
"""Method, request and metadata of a call."""

OPENING_TIMEOUT_S = 5.0

SILENCE_MAX_S = 20.0
"""The interval of messages on a link whose calls wait. Proxies end a stream on which one side sends
nothing: nginx after 60 s (`client_body_timeout`, `grpc_read_timeout`)."""


class UnknownInstanceError(Exception):
    """A relay has ended without the metadata that identify a service's process."""


class RelayLink:
    """One stream to one service."""

    def __init__(self, rpc: Any, instance: str, codec: RelayCodec, credit: int) -> None:
        """`credit` is the number of messages that may be sent at first."""
        self._rpc = rpc
        self.instance = instance
        """ID of the service's process."""
        self.codec = codec
        """Codec of requests and answers."""
        self.opened_at = asyncio.get_running_loop().time()
        """Time of the event loop."""
        self._calls: dict[int, RelayCall] = {}
        self._unsent: dict[int, UnsentStart] = {}
        """Starts of calls, by number. They become frames when they are sent: one whose call ends
        before that costs neither memory nor the service's time."""
        self._last_number = 0
        self._frames = FrameQueue(pb.RelayRequest)
        self._credit = asyncio.Semaphore(credit)
        """Messages that may be sent."""
        self.accepts_calls = True
        self._has_left = False
        """Whether the service knows that there are no more calls."""

    @classmethod
    async def open(cls, channel: grpc.aio.Channel) -> Self:
        """Open a link to a service of the channel.

        Raises AioRpcError, TimeoutError, UnknownInstanceError.
        """
        version = structs_version()
        rpc: Any = RelayServiceStub(channel).Relay(metadata=((STRUCTS_HEADER, version),))
        try:
            async with asyncio.timeout(OPENING_TIMEOUT_S):
                pairs = dict(await rpc.initial_metadata())
                if INSTANCE_HEADER not in pairs:
                    await rpc.read()  # Raises the status of a refusal.
                    raise UnknownInstanceError
        except BaseException:
            rpc.cancel()
            raise
        codec = STRUCTS if pairs.get(STRUCTS_HEADER) == version else MESSAGES
        credit = pairs.get(CREDIT_HEADER, "")
        messages = int(credit) if credit.isdecimal() else sys.maxsize
        return cls(rpc, pairs[INSTANCE_HEADER], codec, messages)

    @property
    def in_flight(self) -> int:
        """Number of calls that have not ended."""
        return len(self._calls)

    def start(
        self,
        method: pb.RelayedMethod.ValueType,
        request: bytes,
        options: CallOptions,
        headers: dict[str, str],
    ) -> RelayCall:
        """Start a call. Use it as a context: it ends there. `headers` gets those of the service.

        `request` is encoded by the `codec`, and has `RELAYED_BYTES_MAX` bytes at most.
        """
        self._last_number = number = self._last_number + 1
        call = RelayCall(number, options, headers, self._frames, self._forget)
        self._calls[number] = call
        if self.accepts_calls:
            self._unsent[number] = method, request, completion_metadata(options)
            self._frames.has_news.set()
        else:
            call.fail(unreachable())
        return call

    def leave(self) -> None:
        """Accept no more calls. The link closes when those in flight have ended."""
        self.accepts_calls = False
        self._frames.has_news.set()

    def close(self) -> None:
        """Close the link at once. Its calls end."""
        self.accepts_calls = False
        self._rpc.cancel()

    async def run(self) -> None:
        """Carry calls until the link closes or breaks. Calls in flight then fail."""
        sending = [
            asyncio.create_task(self._write(), name="relay"),
            asyncio.create_task(self._break_silence(), name="relay"),
        ]
        status: grpc.aio.AioRpcError | None = None
        try:
            while (response := await self._rpc.read()) is not grpc.aio.EOF:
                self._receive(response)
        except grpc.aio.AioRpcError as error:
            status = error
        finally:
            self.close()
            for task in sending:
                task.cancel()
            for call in self._calls.values():
                call.fail(broken_link(status) if status else shutting_down())

    def _receive(self, response: pb.RelayResponse) -> None:
        for _ in range(response.credit_messages):
            self._credit.release()
        for frame in response.frames:
            if (call := self._calls.get(frame.call_id)) is not None:
                call.receive(frame)
        if response.shutting_down:
            self.leave()

    async def _write(self) -> None:
        while True:
            await self._credit.acquire()
            while (request := self._next_request()) is None:
                if not (self.accepts_calls or self._calls):
                    await self._rpc.done_writing()
                    return
                await self._frames.wait_for_news()
            try:
                await self._rpc.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # Reading tells why the stream is over.

    def _next_request(self) -> pb.RelayRequest | None:
        """Return the next frames, with the starts that fit in. None: there is nothing to send."""
        while self._unsent and self._frames.is_short:
            number = next(iter(self._unsent))
            method, request, metadata = self._unsent.pop(number)
            start = self._frames.add(number, len(request)).start
            start.method = method
            start.request = request
            start.timeout_seconds = self._calls[number].time_left_s
            start.metadata.update(metadata)
        if not (self.accepts_calls or self._unsent or self._has_left):
            self._frames.set_flag("leaving")
            self._has_left = True
        return self._frames.take()

    async def _break_silence(self) -> None:
        while True:
            await asyncio.sleep(SILENCE_MAX_S)
            self._frames.send_empty()

    def _forget(self, number: int, has_ended: bool) -> None:
        del self._calls[number]
        if self._unsent.pop(number, None) is None and not has_ended:
            self._frames.add(number).cancelled = True
        if not self.accepts_calls:
            self._frames.has_news.set()
