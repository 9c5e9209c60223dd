"""Relay: calls of one edge over one stream, on real sockets, in front of a scripted core."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import grpc
import msgspec
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.relay.v1 import relay_service_pb2 as pb
from pomogator.relay.v1 import relay_service_pb2_grpc as pb_grpc
from prometheus_client import CollectorRegistry, generate_latest

from gateway.errors import ApiError
from gateway.rpc import relay_link, relay_links
from gateway.rpc.grpc_backend import GrpcBackend
from gateway.rpc.relay_backend import RelayBackend
from gateway.rpc.relay_links import RelayLinks
from gateway.rpc.service_channel import open_channel
from gateway.telemetry.edge_metrics import EdgeMetrics
from services.common.call_names import RELAY_WINDOW_BYTES, RELAYED_BYTES_MAX, STRUCTS_HEADER
from services.common.contract.chat import fill_request
from services.common.contract.relay_codec import MESSAGES, STRUCTS, structs_version
from services.common.frame_queue import RESPONSE_BYTES_MAX
from services.completions.relay_servicer import MOVE_TIMEOUT_S, RelayStream
from services.domain.call_options import CallOptions
from services.domain.conversation import TextPart
from services.domain.error_reason import ErrorReason
from services.domain.events import TextDelta
from services.domain.spec import CompletionRequest, Tool
from tests.gateway.rpc.relay_stand import (
    CALL,
    HEADERS,
    PIECE,
    ScriptedCore,
    Stand,
    asking,
    linked,
    serving,
    stream_text,
    whole_text,
)
from tests.stand.polling import until


@pytest.fixture(params=["same structs", "other structs"])
async def stand(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stand]:
    """A service of the edge's release, and one of another release."""
    is_same = request.param == "same structs"
    if not is_same:
        monkeypatch.setattr(relay_link, "structs_version", lambda: "of another release")
    async with linked(ScriptedCore()) as running:
        link = running.links.choose()
        assert link is not None
        assert link.codec is (STRUCTS if is_same else MESSAGES)
        yield running


@pytest.fixture
def receivers(monkeypatch: pytest.MonkeyPatch) -> list[RelayStream]:
    """The streams that frames arrive on, one entry for each frame."""
    streams: list[RelayStream] = []
    receive = RelayStream._receive

    def note(stream: RelayStream, frame: pb.EdgeFrame) -> None:
        streams.append(stream)
        receive(stream, frame)

    monkeypatch.setattr(RelayStream, "_receive", note)
    return streams


async def test_calls_share_one_stream(stand: Stand, receivers: list[RelayStream]) -> None:
    """Each gets its own answer, and the service gets the facts of each."""
    texts = [f"Hello number {number}" for number in range(50)]
    answers = await asyncio.gather(
        *(whole_text(stand.backend, text) for text in texts),
        *(stream_text(stand.backend, text) for text in texts),
    )

    assert answers == texts * 2
    assert len(set(receivers)) == 1
    assert len(receivers) >= len(answers)
    for options, interrupt in stand.core.asked:
        assert options.key == "sk"
        assert options.request_id == "req-1"
        assert options.idempotency_key == "order-1"
        assert interrupt.time_left_s() == pytest.approx(30, abs=10)


async def test_headers_arrive_before_the_first_batch(stand: Stand) -> None:
    """The order is that of a stream of the call's own."""
    headers: dict[str, str] = {}
    await stand.backend.whole(asking("Hello"), CALL, headers)
    assert headers == HEADERS
    headers = {}
    async with aclosing(stand.backend.stream(asking("Hello"), CALL, headers)) as batches:
        await anext(batches)
        assert headers == HEADERS


@pytest.mark.parametrize("prompt", ["refuse", "break"])
async def test_failures_are_those_of_a_stream_of_the_calls_own(stand: Stand, prompt: str) -> None:
    """Reason, message, parameter, Retry-After and headers are equal."""
    errors = []
    for backend in (stand.backend, GrpcBackend(stand.channel)):
        for call in (whole_text, stream_text):
            with pytest.raises(ApiError) as refused:
                await call(backend, prompt)
            errors.append(refused.value)

    first = errors[0]
    assert "secret" not in str(first)
    for error in errors:
        assert error.reason == first.reason
        assert error.message == first.message
        assert error.param == first.param
        assert error.retry_after_s == first.retry_after_s
        assert error.headers() == first.headers()


async def test_an_unread_stream_is_held_back_alone(stand: Stand) -> None:
    """The service stops when its credit is used up. Other calls pass, and reading lets it go on."""
    async with aclosing(stand.backend.stream(asking("endless"), CALL, {})) as batches:
        await anext(batches)
        for _ in range(20):
            assert await whole_text(stand.backend, "Hello") == "Hello"
        held_back_at = stand.core.produced
        assert held_back_at * len(PIECE) <= RELAY_WINDOW_BYTES + 2 * len(PIECE)
        for _ in range(100):
            await anext(batches)
        assert stand.core.produced >= 100 - 1


async def test_a_stream_that_its_reader_leaves_ends_in_the_service(stand: Stand) -> None:
    """It ends at once, at any point."""
    async with aclosing(stand.backend.stream(asking("endless"), CALL, {})) as batches:
        await anext(batches)
    await asyncio.wait_for(stand.core.cancelled.wait(), 10)

    stand.core.cancelled.clear()
    waiting = asyncio.create_task(whole_text(stand.backend, "wait"))
    await until(lambda: len(stand.core.asked) == 2)
    waiting.cancel()
    await asyncio.wait_for(stand.core.cancelled.wait(), 10)


@pytest.mark.parametrize("prompt", ["wait", "pause"])
async def test_a_call_ends_at_its_deadline(stand: Stand, prompt: str) -> None:
    """It ends on both sides, with and without a begun answer."""
    hurried = CallOptions(key="sk", request_id="req-1", deadline_s=0.2)
    with pytest.raises(ApiError) as refused:
        await stream_text(stand.backend, prompt, hurried)

    assert refused.value.reason == ErrorReason.DEADLINE
    await asyncio.wait_for(stand.core.cancelled.wait(), 10)


async def test_a_large_request_has_a_stream_of_its_own(
    stand: Stand, receivers: list[RelayStream]
) -> None:
    """It would delay the calls behind it."""
    large = msgspec.structs.replace(CALL, request_bytes=RELAYED_BYTES_MAX + 1)
    assert await whole_text(stand.backend, "Hello", large) == "Hello"
    assert await stream_text(stand.backend, "Hello", large) == "Hello"
    assert not receivers
    assert await whole_text(stand.backend, "Hello") == "Hello"
    assert receivers


async def test_a_request_that_is_larger_in_its_encoded_form_does_not_end_the_link(
    stand: Stand,
) -> None:
    """Many small tools take more bytes between edge and service than in the JSON of the client."""
    tools = [Tool(name="f")] * 10_000
    spec = msgspec.structs.replace(asking("Hello").spec, tools=tools)
    request = CompletionRequest(spec=spec, texts=["Hello"])
    call = msgspec.structs.replace(CALL, request_bytes=RELAYED_BYTES_MAX)
    assert len(STRUCTS.encode_request(request)) > 2 * RELAYED_BYTES_MAX
    running = asyncio.create_task(stream_text(stand.backend, "pause and finish"))
    await until(lambda: stand.core.asked)

    (choice,) = (await stand.backend.whole(request, call, {})).choices
    assert choice.message.content == [TextPart(text="Hello")]
    async with aclosing(stand.backend.stream(request, call, {})) as batches:
        assert [batch async for batch in batches] == [[TextDelta("Hello")]]
    stand.core.goes_on.set()
    assert await running == "pause and finish"


async def test_calls_of_one_turn_may_be_large_together(stand: Stand) -> None:
    """Their frames are spread over messages that gRPC accepts, in both directions."""
    request = "y" * (RELAYED_BYTES_MAX - 1000)
    requests = [whole_text(stand.backend, request) for _ in range(220)]
    answers = [whole_text(stand.backend, f"make {2**20}") for _ in range(60)]

    assert {len(answer) for answer in await asyncio.gather(*requests)} == {len(request)}
    assert {len(answer) for answer in await asyncio.gather(*answers)} == {2**20}


async def test_an_answer_that_is_too_large_fails_alone(stand: Stand) -> None:
    """The other calls of the stream go on."""
    running = asyncio.create_task(stream_text(stand.backend, "pause and finish"))
    await until(lambda: stand.core.asked)
    with pytest.raises(ApiError) as failed:
        await whole_text(stand.backend, f"make {RESPONSE_BYTES_MAX + 1}")

    assert failed.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE
    stand.core.goes_on.set()
    assert await running == "pause and finish"


async def test_a_service_without_relay_is_called_by_its_public_methods() -> None:
    """Older releases have no relay."""
    core = ScriptedCore()
    async with (
        serving(core, relayed=False) as (address, _),
        open_channel(address) as channel,
        RelayLinks(channel).searching() as links,
    ):
        backend = RelayBackend(channel, links)
        assert await whole_text(backend, "Hello") == "Hello"
        assert await stream_text(backend, "Hello there") == "Hello there"
        assert links.choose() is None


@pytest.mark.parametrize(
    ("grace_s", "reason"),
    [(0, ErrorReason.SERVICE_UNAVAILABLE), (0.5, ErrorReason.SHUTTING_DOWN)],
)
async def test_calls_of_a_broken_link_fail(grace_s: float, reason: ErrorReason) -> None:
    """Their error is that of an unreachable service, or what the service says at its end."""
    core = ScriptedCore()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(AsyncExitStack())
        address, _ = await server.enter_async_context(serving(core, grace_s=grace_s))
        channel = await stack.enter_async_context(open_channel(address))
        links = await stack.enter_async_context(RelayLinks(channel).searching())
        channel.get_state(try_to_connect=True)
        await until(lambda: links.choose() is not None)
        backend = RelayBackend(channel, links)
        waiting = [
            asyncio.create_task(whole_text(backend, "wait")),
            asyncio.create_task(stream_text(backend, "pause")),
        ]
        await until(lambda: len(core.asked) == 2)
        await server.aclose()
        for each in waiting:
            with pytest.raises(ApiError) as failed:
                await each
            assert failed.value.reason == reason
        assert links.choose() is None


async def test_an_answer_that_has_arrived_is_read_to_its_end_after_its_link(stand: Stand) -> None:
    """Its reader may be slow: the link may break, and the deadline pass, before it has read."""
    link = stand.links.choose()
    assert link is not None
    async with aclosing(stand.backend.stream(asking("one two three"), CALL, {})) as batches:
        words = await anext(batches)
        (call,) = link._calls.values()
        await until(lambda: call._has_ended)
        link.close()
        await until(lambda: link not in stand.links._current.values())
        call._pass_deadline()
        async for batch in batches:
            words += batch
    assert words == [TextDelta("one"), TextDelta("two"), TextDelta("three")]


async def test_a_service_that_shuts_down_finishes_its_calls(stand: Stand) -> None:
    """New calls have streams of their own. The shutdown waits for neither."""
    running = asyncio.create_task(stream_text(stand.backend, "pause and finish"))
    await until(lambda: stand.core.asked)

    async with asyncio.timeout(MOVE_TIMEOUT_S):
        await stand.relay.move_clients_away()

    assert stand.links.choose() is None
    assert await whole_text(stand.backend, "Hello") == "Hello"
    stand.core.goes_on.set()
    assert await running == "pause and finish"


async def test_the_links_are_counted() -> None:
    """At 0 each call has a stream of its own."""
    metrics = EdgeMetrics()
    async with linked(ScriptedCore()) as stand:
        stand.links.declare_metrics(metrics)
        assert "pomogator_edge_relay_links 1.0" in page(metrics)
        await stand.relay.move_clients_away()
        await until(lambda: "pomogator_edge_relay_links 0.0" in page(metrics))


def page(metrics: EdgeMetrics) -> str:
    """Return the text of the metrics page."""
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


async def test_every_service_behind_a_channel_gets_its_share() -> None:
    """Each has one link, and equal links take calls in turn."""
    cores = [ScriptedCore(), ScriptedCore()]
    async with (
        serving(cores[0]) as (first, _),
        serving(cores[1]) as (second, _),
        open_channel(f"ipv4:{first},{second}") as channel,
        RelayLinks(channel).searching() as links,
    ):
        channel.get_state(try_to_connect=True)
        await until(lambda: len(links._current) == 2)
        backend = RelayBackend(channel, links)
        for _ in range(10):
            await whole_text(backend, "Hello")
        assert [len(core.asked) for core in cores] == [5, 5]


async def test_links_are_renewed_under_their_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old link closes when its calls have ended."""
    monkeypatch.setattr(relay_links, "LINK_AGE_MAX_S", 0.1)
    monkeypatch.setattr(relay_links, "SEARCH_INTERVAL_S", 0.05)
    async with linked(ScriptedCore()) as stand:
        first = stand.links.choose()
        running = asyncio.create_task(stream_text(stand.backend, "pause and finish"))
        await until(lambda: stand.core.asked)
        await until(lambda: stand.links.choose() is not first)

        assert first is not None
        assert not first.accepts_calls
        assert await whole_text(stand.backend, "Hello") == "Hello"
        stand.core.goes_on.set()
        assert await running == "pause and finish"
        await until(lambda: first not in stand.links._current.values())
        await until(lambda: len(stand.streams) <= 2)


async def test_frames_that_break_the_contract_fail_alone_or_end_the_stream() -> None:
    """A request that is no message fails alone. Numbers that cannot be meant end the stream."""
    async with serving(ScriptedCore()) as (address, _), open_channel(address) as channel:
        stub: Any = pb_grpc.RelayServiceStub(channel)
        rpc = stub.Relay()
        method = pb.RELAYED_METHOD_STREAM_CHAT_COMPLETION
        bad = pb.CallStart(method=method, request=b"\xff", timeout_seconds=5)
        unknown = pb.EdgeFrame(call_id=9, credit_bytes=5)
        await rpc.write(pb.RelayRequest(frames=[unknown, pb.EdgeFrame(call_id=1, start=bad)]))
        (frame,) = (await rpc.read()).frames
        assert (frame.call_id, frame.ended, frame.failure.code) == (1, True, 3)

        hello = fill_request(asking("wait"), chat.StreamChatCompletionRequest())
        waiting = pb.CallStart(method=method, request=hello.SerializeToString(), timeout_seconds=5)
        start = pb.EdgeFrame(call_id=2, start=waiting)
        await rpc.write(pb.RelayRequest(frames=[start, start]))
        with pytest.raises(grpc.aio.AioRpcError, match="started twice"):
            await rpc.read()

        rpc = stub.Relay()
        start.start.timeout_seconds = math.nan
        await rpc.write(pb.RelayRequest(frames=[start]))
        with pytest.raises(grpc.aio.AioRpcError, match="timeout of call 2 is no number"):
            await rpc.read()


async def test_a_request_that_is_no_struct_fails_alone() -> None:
    """As one that is no message, on a stream whose sides have the same structs."""
    async with serving(ScriptedCore()) as (address, _), open_channel(address) as channel:
        stub: Any = pb_grpc.RelayServiceStub(channel)
        rpc = stub.Relay(metadata=((STRUCTS_HEADER, structs_version()),))
        method = pb.RELAYED_METHOD_STREAM_CHAT_COMPLETION
        good = STRUCTS.encode_request(asking("Hello"))
        for number, request in enumerate((b"\xff", good)):
            start = pb.CallStart(method=method, request=request, timeout_seconds=5)
            await rpc.write(pb.RelayRequest(frames=[pb.EdgeFrame(call_id=number, start=start)]))
        frames: list[pb.ServiceFrame] = []
        while sum(frame.ended for frame in frames) < 2:
            frames += (await rpc.read()).frames
        failures = {frame.call_id: frame.failure.code for frame in frames if frame.ended}
        assert failures == {0: grpc.StatusCode.INVALID_ARGUMENT.value[0], 1: 0}
