"""Relay: faults of services, proxies and certificates, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.relay.v1 import relay_service_pb2 as pb
from pomogator.relay.v1 import relay_service_pb2_grpc as pb_grpc

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.rpc.reconnecting_channel import ReconnectingChannel
from gateway.rpc.relay_backend import RelayBackend
from gateway.rpc.relay_links import RelayLinks
from gateway.rpc.service_channel import open_channel
from services.common.addresses import split_address
from services.common.call_names import INSTANCE_HEADER, RELAYED_BYTES_MAX
from services.common.contract.chat import fill_request
from services.common.frame_queue import RESPONSE_BYTES_MAX
from services.domain.completion import Completion
from services.domain.error_reason import ErrorReason
from services.domain.spec import CompletionRequest
from services.rpc.listener import listening
from tests.gateway.rpc.relay_stand import (
    CALL,
    ScriptedCore,
    asking,
    linked,
    serving,
    stream_text,
    whole_text,
)
from tests.stand.polling import until
from tests.stand.slow_link import slow_link

STREAM = pb.RELAYED_METHOD_STREAM_CHAT_COMPLETION
OPENED_MAX = 20
"""More links than an edge opens in a second to one service that ends them."""


class CancellingCore(ScriptedCore):
    """Ends each call with a cancellation of its own, as of a task that is shared."""

    async def whole(self, request: CompletionRequest, *_: Any) -> Completion:
        """Await a task that is cancelled."""
        shared = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(shared.cancel)
        await shared
        raise AssertionError(request)


class EndingRelay(pb_grpc.RelayServiceServicer):
    """Ends each relay at once, with or without the metadata that identify a service."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata
        self.opened = 0

    async def Relay(self, _: object, context: Any) -> AsyncIterator[pb.RelayResponse]:  # noqa: N802
        """End it with OK."""
        self.opened += 1
        await context.send_initial_metadata(self._metadata)
        none: list[pb.RelayResponse] = []
        for response in none:
            yield response


@asynccontextmanager
async def serving_relay(relay: pb_grpc.RelayServiceServicer) -> AsyncIterator[str]:
    """Serve a relay without the methods that it stands for."""

    def register(server: grpc.aio.Server) -> None:
        pb_grpc.add_RelayServiceServicer_to_server(relay, server)

    async with listening(register, "127.0.0.1:0", grace_s=0) as address:
        yield address


@pytest.mark.parametrize("metadata", [(), ((INSTANCE_HEADER, "one"),)])
async def test_a_service_that_ends_its_links_is_not_flooded(
    metadata: tuple[tuple[str, str], ...],
) -> None:
    """Links are tried again after a pause, and the event loop runs on."""
    relay = EndingRelay(metadata)
    async with (
        serving_relay(relay) as address,
        open_channel(address) as channel,
        RelayLinks(channel).searching(),
    ):
        channel.get_state(try_to_connect=True)
        await until(lambda: relay.opened)
        await asyncio.sleep(1)
        assert relay.opened < OPENED_MAX


async def test_links_are_found_after_a_change_of_the_certificate() -> None:
    """The old certificate need not have made a connection."""
    async with serving(ScriptedCore()) as (address, _):
        addresses = iter(["127.0.0.1:1", address])
        versions = iter([1, 2])
        channel = ReconnectingChannel(
            lambda: open_channel(next(addresses)), lambda: next(versions, 2), check_interval_s=60
        )
        async with channel, RelayLinks(channel).searching() as links:
            channel.get_state(try_to_connect=True)
            await asyncio.sleep(0.1)  # The search waits for the old channel.
            channel.reconnect_if_changed()
            channel.get_state(try_to_connect=True)
            await until(lambda: links.choose() is not None)


async def test_a_call_that_is_cancelled_within_the_service_ends() -> None:
    """The edge gets the end at once, not at the deadline."""
    async with linked(CancellingCore()) as stand:
        with pytest.raises(ApiError) as failed:
            async with asyncio.timeout(10):
                await whole_text(stand.backend, "Hello")
        assert failed.value.reason == ErrorReason.SERVICE_UNAVAILABLE
        async with asyncio.timeout(10):
            await until(lambda: not any(stream._calls for stream in stand.streams))


async def test_a_service_that_refuses_calls_gets_no_more_than_its_share() -> None:
    """Refusals are quick: a service with few calls in flight may be one that serves none."""
    failing, serving_core = CancellingCore(), ScriptedCore()
    async with (
        serving(failing) as (first, _),
        serving(serving_core) as (second, _),
        open_channel(f"ipv4:{first},{second}") as channel,
        RelayLinks(channel).searching() as links,
    ):
        channel.get_state(try_to_connect=True)
        await until(lambda: len(links._current) == 2)
        backend = RelayBackend(channel, links)
        calls: list[asyncio.Task[str]] = []
        for _ in range(20):
            calls.append(asyncio.create_task(whole_text(backend, "wait")))
            await until(
                lambda: sum(call.done() for call in calls) + len(serving_core.asked) == len(calls)
            )
        serving_core.goes_on.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results.count("wait") == 10


async def test_services_of_an_older_release_keep_their_share() -> None:
    """While one of the services has no relay, calls have streams of their own."""
    cores = [ScriptedCore(), ScriptedCore()]
    async with (
        serving(cores[0]) as (first, _),
        serving(cores[1], relayed=False) as (second, _),
        open_channel(f"ipv4:{first},{second}") as channel,
        RelayLinks(channel).searching() as links,
    ):
        channel.get_state(try_to_connect=True)
        await until(lambda: links._is_refused)
        backend = RelayBackend(channel, links)
        for _ in range(10):
            await whole_text(backend, "Hello")
        assert [len(core.asked) for core in cores] == [5, 5]


async def test_messages_may_be_larger_than_the_largest_body() -> None:
    """A message that gRPC refuses would end the link with all of its calls."""
    request = "y" * 90_000
    async with (
        serving(ScriptedCore()) as (address, _),
        open_channel(address, EdgeConfig(body_bytes_max=100_000)) as channel,
        RelayLinks(channel).searching() as links,
    ):
        channel.get_state(try_to_connect=True)
        await until(lambda: links.choose() is not None)
        link, backend = links.choose(), RelayBackend(channel, links)
        answer = await whole_text(backend, f"make {RESPONSE_BYTES_MAX - 1000}")
        assert len(answer) == RESPONSE_BYTES_MAX - 1000
        assert await asyncio.gather(*(whole_text(backend, request) for _ in range(8))) == (
            [request] * 8
        )
        assert links.choose() is link


async def test_a_large_answer_lets_small_ones_pass() -> None:
    """Its pieces leave room for the frames of other calls, whole and streamed."""
    core = ScriptedCore()
    async with (
        serving(core) as (address, _),
        slow_link(split_address(address), 0.01) as port,
        open_channel(f"127.0.0.1:{port}") as channel,
        RelayLinks(channel).searching() as links,
    ):
        channel.get_state(try_to_connect=True)
        await until(lambda: links.choose() is not None)
        backend = RelayBackend(channel, links)
        for ask in (whole_text, stream_text):
            core.asked.clear()
            large = asyncio.create_task(ask(backend, f"make {24 * 2**20}"))
            await until(lambda: core.asked)
            for _ in range(3):
                assert await whole_text(backend, "Hello") == "Hello"
            assert not large.done()
            assert await large == "z" * 24 * 2**20


async def test_an_edge_closes_links_that_it_has_left() -> None:
    """A service that does not end its side holds up no shutdown of the edge."""
    async with (
        serving(ScriptedCore()) as (address, _),
        open_channel(address) as channel,
        asyncio.timeout(10),
    ):
        async with RelayLinks(channel).searching() as links:
            channel.get_state(try_to_connect=True)
            await until(lambda: links.choose() is not None)
            link = links.choose()
            assert link is not None
            left_open = asyncio.create_task(whole_text(RelayBackend(channel, links), "wait"))
            await until(lambda: link.in_flight)
            link.leave()
            links._current.clear()  # As if another link had taken its place.
        with pytest.raises(ApiError):
            await left_open


@asynccontextmanager
async def raw_relay() -> AsyncIterator[Any]:
    """Open a relay by hand to a scripted core."""
    async with serving(ScriptedCore()) as (address, _), open_channel(address) as channel:
        rpc = pb_grpc.RelayServiceStub(channel).Relay()
        yield rpc
        rpc.cancel()


def start(text: str, timeout_s: float = 30.0, method: Any = STREAM) -> pb.EdgeFrame:
    """Return the frame that starts the first call."""
    message = fill_request(asking(text), chat.StreamChatCompletionRequest()).SerializeToString()
    call = pb.CallStart(method=method, request=message, timeout_seconds=timeout_s)
    return pb.EdgeFrame(call_id=1, start=call)


async def frame_where(rpc: Any, is_wanted: Callable[[pb.ServiceFrame], bool]) -> pb.ServiceFrame:
    """Read to the first such frame."""
    async with asyncio.timeout(10):
        while True:
            response: pb.RelayResponse = await rpc.read()
            for frame in response.frames:
                if is_wanted(frame):
                    return frame


async def test_a_call_whose_answer_is_not_read_ends_at_its_deadline() -> None:
    """It would stay in the service for as long as the link does."""
    async with raw_relay() as rpc:
        await rpc.write(pb.RelayRequest(frames=[start("endless", timeout_s=0.5)]))
        last = await frame_where(rpc, lambda frame: frame.ended)
        assert last.failure.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


@pytest.mark.parametrize("credit", [-1, 1, 2**62])
async def test_credit_for_more_than_was_sent_ends_the_stream(credit: int) -> None:
    """Answers that are not read would fill the service's memory."""
    async with raw_relay() as rpc:
        start_and_credit = [start("wait"), pb.EdgeFrame(call_id=1, credit_bytes=credit)]
        await rpc.write(pb.RelayRequest(frames=start_and_credit))
        with pytest.raises(grpc.aio.AioRpcError, match="credit of call 1 is not"):
            await rpc.read()


async def test_frames_of_later_releases_change_nothing() -> None:
    """A kind of frame that the service does not know does not cancel the call."""
    unknown = pb.EdgeFrame.FromString(pb.EdgeFrame(call_id=1).SerializeToString() + b"\x7a\x00")
    async with raw_relay() as rpc:
        await rpc.write(pb.RelayRequest(frames=[start("Hello there"), unknown]))
        last = await frame_where(rpc, lambda frame: frame.ended)
        assert not last.HasField("failure")


@pytest.mark.parametrize("method", [0, 99])
async def test_methods_of_later_releases_are_refused(method: int) -> None:
    """With the status of a method that the service does not have."""
    async with raw_relay() as rpc:
        await rpc.write(pb.RelayRequest(frames=[start("Hello", method=method)]))
        last = await frame_where(rpc, lambda frame: frame.ended)
        assert last.failure.code == grpc.StatusCode.UNIMPLEMENTED.value[0]


class UnreadRelay(pb_grpc.RelayServiceServicer):
    """Opens relays, and reads none of their messages."""

    async def Relay(self, _: object, context: Any) -> AsyncIterator[pb.RelayResponse]:  # noqa: N802
        """Wait for the end of the service."""
        await context.send_initial_metadata(((INSTANCE_HEADER, "one"),))
        yield pb.RelayResponse()
        await asyncio.Event().wait()


async def test_calls_of_a_link_that_breaks_while_it_sends_may_be_tried_again() -> None:
    """Grpcio ends such a link with INTERNAL, which is no fault of the gateway here."""
    async with serving_relay(UnreadRelay()) as address, AsyncExitStack() as stack:
        connection = await stack.enter_async_context(AsyncExitStack())
        port = await connection.enter_async_context(slow_link(split_address(address), 0))
        channel = await stack.enter_async_context(open_channel(f"127.0.0.1:{port}"))
        links = await stack.enter_async_context(RelayLinks(channel).searching())
        channel.get_state(try_to_connect=True)
        await until(lambda: links.choose() is not None)
        link = links.choose()
        assert link is not None
        request = bytes(RELAYED_BYTES_MAX)
        calls = [link.start(STREAM, request, CALL, {}) for _ in range(20)]
        await asyncio.sleep(0.1)
        await connection.aclose()
        for call in calls:
            with pytest.raises(ApiError) as failed:
                await call.next_response()
            assert failed.value.reason == ErrorReason.SERVICE_UNAVAILABLE
