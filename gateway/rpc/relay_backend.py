"""Relay backend: a service over gRPC whose completions share one stream.

Without a link a completion has a stream of its own. So has a large request, which would delay the
others.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc
from pomogator.relay.v1 import relay_service_pb2 as pb

from gateway.overload.memory_monitor import MemoryMonitor
from gateway.rpc.grpc_backend import GrpcBackend
from gateway.rpc.relay_link import RelayLink
from gateway.rpc.relay_links import RelayLinks
from services.common.call_names import RELAYED_BYTES_MAX
from services.domain.call_options import CallOptions
from services.domain.completion import Completion
from services.domain.events import Batch
from services.domain.spec import CompletionRequest


class RelayBackend(GrpcBackend):
    """The services at the other end of a channel, which the caller opens and closes."""

    def __init__(
        self, channel: grpc.aio.Channel, links: RelayLinks, memory: MemoryMonitor | None = None
    ) -> None:
        super().__init__(channel, memory)
        self._links = links

    async def whole(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str], /
    ) -> Completion:
        """Return the whole answer to a request."""
        chosen = self._choose(request, call)
        if chosen is None:
            return await super().whole(request, call, headers)
        link, encoded = chosen
        method = pb.RELAYED_METHOD_CREATE_CHAT_COMPLETION
        relayed = link.start(method, encoded, call, headers)
        del chosen, encoded  # They may be large, and the answer take long.
        with self._in_flight(call, relayed.shut_down), relayed:
            response = await relayed.next_response()
        return link.codec.decode_completion(response)

    def stream(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str], /
    ) -> AsyncGenerator[Batch, None]:
        """Return the batches of an answer."""
        chosen = self._choose(request, call)
        if chosen is None:
            return super().stream(request, call, headers)
        return self._relay(*chosen, call, headers)

    def _choose(
        self, request: CompletionRequest, call: CallOptions
    ) -> tuple[RelayLink, bytes] | None:
        """Return a link, and the request in the form that it carries. None: there is no such."""
        if call.request_bytes > RELAYED_BYTES_MAX:
            return None
        link = self._links.choose()
        if link is None:
            return None
        # Lists of small objects are larger in this form than in JSON. The service ends a link that
        # brings too large a request, with all calls of the link.
        encoded = link.codec.encode_request(request)
        return None if len(encoded) > RELAYED_BYTES_MAX else (link, encoded)

    async def _relay(
        self, link: RelayLink, encoded: bytes, call: CallOptions, headers: dict[str, str]
    ) -> AsyncGenerator[Batch, None]:
        method, decode = pb.RELAYED_METHOD_STREAM_CHAT_COMPLETION, link.codec.decode_batch
        relayed = link.start(method, encoded, call, headers)
        del encoded  # It may be large, and the stream long.
        with self._in_flight(call, relayed.shut_down), relayed:
            while response := await relayed.next_response():
                if batch := decode(response):
                    yield batch
