"""Relay backend: a service over gRPC whose completions share one stream.

Without a link a completion has a stream of its own. So has a large request, which would delay the
others.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.relay.v1 import relay_service_pb2 as pb

from gateway.backend import CallOptions
from gateway.rpc.grpc_backend import GrpcBackend
from gateway.rpc.relay_link import RelayLink
from gateway.rpc.relay_links import RelayLinks
from services.common.call_names import RELAYED_BYTES_MAX
from services.common.contract.chat import fill_request, read_completion
from services.common.contract.chat_events import read_batch
from services.domain.completion import Completion
from services.domain.events import Batch
from services.domain.spec import CompletionRequest


class RelayBackend(GrpcBackend):
    """The services at the other end of a channel, which the caller opens and closes."""

    def __init__(self, channel: grpc.aio.Channel, links: RelayLinks) -> None:
        super().__init__(channel)
        self._links = links

    async def whole(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str]
    ) -> Completion:
        """Return the whole answer to a request."""
        link = self._choose(call)
        if link is None:
            return await super().whole(request, call, headers)
        message = fill_request(request, chat.CreateChatCompletionRequest()).SerializeToString()
        with link.start(pb.RELAYED_METHOD_CREATE_CHAT_COMPLETION, message, call) as relayed:
            frame = await relayed.next_frame()
        answer = chat.CreateChatCompletionResponse.FromString(frame.response)
        headers.update(frame.headers)
        return read_completion(answer)

    def stream(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str]
    ) -> AsyncGenerator[Batch, None]:
        """Return the batches of an answer."""
        link = self._choose(call)
        if link is None:
            return super().stream(request, call, headers)
        message = fill_request(request, chat.StreamChatCompletionRequest()).SerializeToString()
        return _relay(link, message, call, headers)

    def _choose(self, call: CallOptions) -> RelayLink | None:
        return None if call.request_bytes > RELAYED_BYTES_MAX else self._links.choose()


async def _relay(
    link: RelayLink, message: bytes, call: CallOptions, headers: dict[str, str]
) -> AsyncGenerator[Batch, None]:
    with link.start(pb.RELAYED_METHOD_STREAM_CHAT_COMPLETION, message, call) as relayed:
        del message  # It may be large, and the stream long.
        while True:
            frame = await relayed.next_frame()
            headers.update(frame.headers)
            response = chat.StreamChatCompletionResponse.FromString(frame.response)
            if batch := read_batch(response):
                yield batch
            if frame.ended:
                return
