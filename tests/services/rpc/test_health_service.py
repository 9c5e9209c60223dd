"""Health as clients see it, by `Check` and `Watch`, and during a graceful shutdown."""

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

from gateway.rpc.service_channel import CALLS_HEALTH, open_channel
from services.rpc.health_service import CALLS, HealthService
from services.rpc.listener import listening
from tests.services.rpc.test_listener import Models

Status = health_pb2.HealthCheckResponse
GRACE_S = 600.0
"""The grace for calls in flight; no test waits so long."""


def watching(
    channel: grpc.aio.Channel, name: str = ""
) -> AsyncIterator[health_pb2.HealthCheckResponse]:
    """Watch the health of a name."""
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return aiter(watch(health_pb2.HealthCheckRequest(service=name)))


async def test_watches_do_not_hold_up_a_shutdown() -> None:
    """They end with NOT_SERVING, and so does a watch that begins later."""
    health = HealthService()

    def register(server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(health, server)

    async with asyncio.timeout(60), AsyncExitStack() as stack:
        address = await stack.enter_async_context(
            listening(register, "127.0.0.1:0", grace_s=GRACE_S)
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        early = watching(channel)
        assert (await anext(early)).status == Status.SERVING
        await health.set("", Status.NOT_SERVING)
        assert (await anext(early)).status == Status.NOT_SERVING
        await health.set("", Status.SERVING)
        assert (await anext(early)).status == Status.SERVING

        await health.enter_graceful_shutdown()

        assert [each.status async for each in early] == [Status.NOT_SERVING]
        assert [each.status async for each in watching(channel)] == [Status.NOT_SERVING]


async def test_a_disconnected_watch_leaves_no_task() -> None:
    """Of a load balancer that hangs up."""
    health = HealthService()

    def register(server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(health, server)

    before = asyncio.all_tasks()
    async with listening(register, "127.0.0.1:0", grace_s=0) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            assert (await anext(watching(channel))).status == Status.SERVING
        async with asyncio.timeout(60):
            while any("Watch" in str(each) for each in asyncio.all_tasks() - before):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # Nothing announces it.


class Replica(Models):
    """A service that moves its clients away before it stops."""

    def __init__(self) -> None:
        self.health = HealthService()
        self.served = 0
        self.called = asyncio.Event()

    async def GetModel(self, request: pb.GetModelRequest, context: object) -> pb.GetModelResponse:  # noqa: N802
        """The model that was asked for."""
        self.served += 1
        self.called.set()
        return await super().GetModel(request, context)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service, and its health."""
        pb_grpc.add_ModelServiceServicer_to_server(self, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)

    @asynccontextmanager
    async def listening(self, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
        """Serve; on exit, shut down as `pomogator serve` does."""
        async with listening(self.register, address, grace_s=GRACE_S) as bound:
            yield bound
            await self.health.enter_graceful_shutdown()
            await self.health.move_clients_away()


RESTARTS = 6
CALLERS = 8


async def test_no_call_fails_while_replicas_restart() -> None:
    """An edge calls two replicas, and never one that has stopped."""
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


async def test_calls_wait_where_there_is_no_other_replica() -> None:
    """An edge that has moved away from all replicas neither fails calls nor sends them."""
    replica = Replica()
    async with (
        asyncio.timeout(60),
        listening(replica.register, "127.0.0.1:0", grace_s=0) as address,
        open_channel(address) as channel,
    ):
        stub = pb_grpc.ModelServiceStub(channel)
        await stub.GetModel(pb.GetModelRequest(model="m"))

        await replica.health.move_clients_away()

        assert channel.get_state() is grpc.ChannelConnectivity.CONNECTING
        late = stub.GetModel(pb.GetModelRequest(model="m"))
        await replica.health.move_clients_away()  # By its end the call would have arrived.
        assert not late.done()
        assert replica.served == 1


async def test_connected_clients_still_call_a_process_that_no_new_client_finds() -> None:
    """NOT_SERVING under the other names does not move connected clients away."""
    replica = Replica()
    async with (
        asyncio.timeout(60),
        listening(replica.register, "127.0.0.1:0", grace_s=0) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        watch = watching(channel, CALLS)
        assert (await anext(watch)).status == Status.SERVING

        await replica.health.enter_graceful_shutdown()

        assert [each.status async for each in watching(channel)] == [Status.NOT_SERVING]
        assert (await anext(watching(channel, CALLS))).status == Status.SERVING
        # A client that does not begin a new watch is not waited for without limit.
        await replica.health.move_clients_away()
        assert [each async for each in watch] == []
        assert [each async for each in watching(channel, CALLS)] == []


async def test_a_process_without_watching_clients_stops_at_once() -> None:
    """Nothing is waited for."""
    moving = HealthService().move_clients_away()
    with pytest.raises(StopIteration):
        moving.send(None)


def test_edge_and_service_use_the_same_health_name() -> None:
    """The edge has a copy of the constant."""
    assert CALLS_HEALTH == CALLS
