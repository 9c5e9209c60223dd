"""What is said of the service's health, to those who ask once and those who watch."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pomogator.models.v1 import model_service_pb2 as pb
from pomogator.models.v1 import model_service_pb2_grpc as pb_grpc

from gateway.rpc.channel import WATCHED, open_channel
from services.rpc.health_service import CALLS, HealthService
from services.rpc.listener import listening
from tests.services.rpc.test_listener import Models

Status = health_pb2.HealthCheckResponse
GRACE_S = 600.0
"""What a call that runs would be given; nobody waits so long here."""


def watching(
    channel: grpc.aio.Channel, name: str = ""
) -> AsyncIterator[health_pb2.HealthCheckResponse]:
    """What is told of a name."""
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return aiter(watch(health_pb2.HealthCheckRequest(service=name)))


async def test_who_watches_does_not_hold_up_the_end() -> None:
    """Told that nothing is served any more, they are let go; so is who only then comes."""
    vitals = HealthService()

    def register(server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(vitals, server)

    async with asyncio.timeout(60), AsyncExitStack() as stack:
        address = await stack.enter_async_context(
            listening(register, "127.0.0.1:0", grace_s=GRACE_S)
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        early = watching(channel)
        assert (await anext(early)).status == Status.SERVING
        await vitals.set("", Status.NOT_SERVING)
        assert (await anext(early)).status == Status.NOT_SERVING
        await vitals.set("", Status.SERVING)
        assert (await anext(early)).status == Status.SERVING

        await vitals.enter_graceful_shutdown()

        assert [each.status async for each in early] == [Status.NOT_SERVING]
        assert [each.status async for each in watching(channel)] == [Status.NOT_SERVING]


async def test_who_leaves_is_forgotten() -> None:
    """A balancer that hangs up leaves nothing behind."""
    vitals = HealthService()

    def register(server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(vitals, server)

    before = asyncio.all_tasks()
    async with listening(register, "127.0.0.1:0", grace_s=0) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            assert (await anext(watching(channel))).status == Status.SERVING
        async with asyncio.timeout(60):
            while any("Watch" in str(each) for each in asyncio.all_tasks() - before):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # Nothing announces it.


class Replica(Models):
    """A service of which edges learn when it stops."""

    def __init__(self) -> None:
        self.vitals = HealthService()
        self.served = 0
        self.called = asyncio.Event()

    async def GetModel(self, request: pb.GetModelRequest, context: object) -> pb.GetModelResponse:  # noqa: N802
        """The model that was asked for."""
        self.served += 1
        self.called.set()
        return await super().GetModel(request, context)

    def register(self, server: grpc.aio.Server) -> None:
        """Adds it, and its health."""
        pb_grpc.add_ModelServiceServicer_to_server(self, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.vitals, server)

    @asynccontextmanager
    async def listening(self, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
        """Serves; on the way out, it stops as `pomogator serve` does."""
        async with listening(self.register, address, grace_s=GRACE_S) as bound:
            yield bound
            await self.vitals.enter_graceful_shutdown()
            await self.vitals.dismiss()


RESTARTS = 6
CALLERS = 8


async def test_a_service_stops_and_no_call_fails() -> None:
    """An edge calls two; each stops and comes back, and it never calls one that has stopped."""
    ends: Counter[str] = Counter()
    enough = asyncio.Event()

    async def call(stub: pb_grpc.ModelServiceStub) -> None:
        while not enough.is_set():
            try:
                await stub.GetModel(pb.GetModelRequest(model="m"))
                ends["OK"] += 1
            except grpc.aio.AioRpcError as error:
                ends[f"{error.code().name}: {error.details()}"] += 1

    async with asyncio.timeout(60), AsyncExitStack() as stack:
        stops = [AsyncExitStack(), AsyncExitStack()]
        addresses = []
        for each in stops:
            await stack.enter_async_context(each)
            addresses.append(await each.enter_async_context(Replica().listening()))
        channel = await stack.enter_async_context(open_channel(f"ipv4:{','.join(addresses)}"))
        stub = pb_grpc.ModelServiceStub(channel)
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(call(stub))
            for number in range(RESTARTS):
                await stops[number % 2].aclose()
                replica = Replica()
                again = replica.listening(addresses[number % 2])
                await stops[number % 2].enter_async_context(again)
                await replica.called.wait()
            enough.set()
    assert ends.keys() == {"OK"}


async def test_calls_wait_where_there_is_no_other() -> None:
    """Dismissed by all, an edge neither fails calls nor has them begun."""
    replica = Replica()
    async with (
        asyncio.timeout(60),
        listening(replica.register, "127.0.0.1:0", grace_s=0) as address,
        open_channel(address) as channel,
    ):
        stub = pb_grpc.ModelServiceStub(channel)
        await stub.GetModel(pb.GetModelRequest(model="m"))

        await replica.vitals.dismiss()

        assert channel.get_state() is grpc.ChannelConnectivity.CONNECTING
        late = stub.GetModel(pb.GetModelRequest(model="m"))
        await replica.vitals.dismiss()  # Meanwhile it would have come.
        assert not late.done()
        assert replica.served == 1


async def test_found_no_more_but_still_called() -> None:
    """What is said under other names does not turn away who has a connection."""
    replica = Replica()
    async with (
        asyncio.timeout(60),
        listening(replica.register, "127.0.0.1:0", grace_s=0) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        watch = watching(channel, CALLS)
        assert (await anext(watch)).status == Status.SERVING

        await replica.vitals.enter_graceful_shutdown()

        assert [each.status async for each in watching(channel)] == [Status.NOT_SERVING]
        assert (await anext(watching(channel, CALLS))).status == Status.SERVING
        # Who is dismissed and does not ask again is not waited for for ever.
        await replica.vitals.dismiss()
        assert [each async for each in watch] == []
        assert [each async for each in watching(channel, CALLS)] == []


async def test_nobody_is_waited_for_where_nobody_watches() -> None:
    """A process without edges stops at once."""
    dismissing = HealthService().dismiss()
    with pytest.raises(StopIteration):
        dismissing.send(None)


def test_edges_watch_the_right_name() -> None:
    """They know nothing of services but the contract, and this."""
    assert WATCHED == CALLS
