"""Relay: credit for messages, which an edge needs for each of its own, on real sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from pomogator.relay.v1 import relay_service_pb2 as pb
from pomogator.relay.v1 import relay_service_pb2_grpc as pb_grpc

from gateway.errors import ApiError
from gateway.rpc.relay_call import RelayCall
from gateway.rpc.relay_link import RelayLink
from gateway.rpc.service_channel import open_channel
from services.common.call_names import CREDIT_HEADER, INSTANCE_HEADER, RELAYED_BYTES_MAX
from services.completions.relay_servicer import CREDIT_MESSAGES
from services.domain.error_reason import ErrorReason
from services.rpc.listener import listening
from tests.gateway.rpc.relay_stand import CALL, ScriptedCore, serving
from tests.stand.polling import until

CALLS = 10
PAUSE_S = 0.05
"""Time in which an edge sends what it may."""


class SilentRelay(pb_grpc.RelayServiceServicer):
    """Reads the messages of an edge, and answers when it is told to."""

    def __init__(self, credit: str | None) -> None:
        self._credit = credit
        self.requests: list[pb.RelayRequest] = []
        self.answers: asyncio.Queue[pb.RelayResponse] = asyncio.Queue()
        self.is_read = asyncio.Event()

    async def Relay(  # noqa: N802
        self, requests: AsyncIterator[pb.RelayRequest], context: Any
    ) -> AsyncIterator[pb.RelayResponse]:
        """Carry the calls of an edge."""
        credit = () if self._credit is None else ((CREDIT_HEADER, self._credit),)
        await context.send_initial_metadata(((INSTANCE_HEADER, "one"), *credit))
        reading = asyncio.create_task(self._read(requests))
        while not self.is_read.is_set():
            yield await self.answers.get()
        await reading

    async def _read(self, requests: AsyncIterator[pb.RelayRequest]) -> None:
        async for request in requests:
            self.requests.append(request)
        self.is_read.set()
        self.answers.put_nowait(pb.RelayResponse())


@asynccontextmanager
async def linked(credit: str | None) -> AsyncIterator[tuple[SilentRelay, RelayLink]]:
    """Open a link to a service that gives so much credit at first."""
    relay = SilentRelay(credit)

    def register(server: Any) -> None:
        pb_grpc.add_RelayServiceServicer_to_server(relay, server)

    async with (
        listening(register, "127.0.0.1:0", grace_s=0) as address,
        open_channel(address) as channel,
    ):
        link = await RelayLink.open(channel)
        running = asyncio.create_task(link.run())
        yield relay, link
        link.close()
        await asyncio.wait([running])


async def start_calls(link: RelayLink) -> list[RelayCall]:
    """Start calls, each in turns of the event loop of its own."""
    calls: list[RelayCall] = []
    for _ in range(CALLS):
        calls.append(link.start(pb.RELAYED_METHOD_CREATE_CHAT_COMPLETION, b"", CALL, {}))
        await asyncio.sleep(PAUSE_S)
    return calls


def frames(requests: list[pb.RelayRequest]) -> list[int]:
    """Return the number of frames in each message."""
    return [len(request.frames) for request in requests]


async def test_an_edge_without_credit_collects_its_frames() -> None:
    """A busy service gets few messages, and each call waits behind one or two of them."""
    async with linked("2") as (relay, link):
        await start_calls(link)
        assert frames(relay.requests) == [1, 1]

        relay.answers.put_nowait(pb.RelayResponse(credit_messages=2))
        await until(lambda: len(relay.requests) == 3)
        link.start(pb.RELAYED_METHOD_CREATE_CHAT_COMPLETION, b"", CALL, {})
        await until(lambda: len(relay.requests) == 4)
        assert frames(relay.requests) == [1, 1, CALLS - 2, 1]


@pytest.mark.parametrize("credit", [None, "many"])
async def test_a_service_of_an_older_release_gets_messages_without_credit(
    credit: str | None,
) -> None:
    """It gives none."""
    async with linked(credit) as (relay, link):
        await start_calls(link)
        assert frames(relay.requests) == [1] * CALLS


async def test_calls_that_end_while_the_edge_has_no_credit() -> None:
    """The service gets the cancellation of calls that it knows, and nothing of the others."""
    async with linked("1") as (relay, link):
        calls = await start_calls(link)
        link.leave()
        for call in calls:
            with call:
                pass
        await asyncio.sleep(PAUSE_S)
        assert frames(relay.requests) == [1]
        assert not relay.is_read.is_set()

        relay.answers.put_nowait(pb.RelayResponse(credit_messages=1))
        await until(lambda: len(relay.requests) == 2)
        cancellation = pb.EdgeFrame(call_id=1, cancelled=True)
        assert relay.requests[1] == pb.RelayRequest(frames=[cancellation], leaving=True)

        relay.answers.put_nowait(pb.RelayResponse(credit_messages=1))
        await until(relay.is_read.is_set)


async def test_a_call_passes_its_deadline_while_the_edge_has_no_credit() -> None:
    """It fails as anywhere else."""
    async with linked("0") as (relay, link):
        short = msgspec.structs.replace(CALL, deadline_s=PAUSE_S)
        call = link.start(pb.RELAYED_METHOD_CREATE_CHAT_COMPLETION, b"", short, {})
        with pytest.raises(ApiError) as failed, call:
            await call.next_response()
        assert failed.value.reason == ErrorReason.DEADLINE

        link.leave()
        relay.answers.put_nowait(pb.RelayResponse(credit_messages=1))
        await until(lambda: relay.requests)
        assert relay.requests == [pb.RelayRequest(leaving=True)]


async def test_a_service_learns_the_time_that_a_call_has_left() -> None:
    """A call that has waited for credit must not go on after its deadline."""
    async with linked("0") as (relay, link):
        link.start(pb.RELAYED_METHOD_CREATE_CHAT_COMPLETION, b"", CALL, {})
        await asyncio.sleep(PAUSE_S)
        relay.answers.put_nowait(pb.RelayResponse(credit_messages=1))
        await until(lambda: relay.requests)
        assert relay.requests[0].frames[0].start.timeout_seconds <= CALL.deadline_s - PAUSE_S


async def test_an_edge_leaves_with_the_last_of_its_calls() -> None:
    """Large requests need several messages: a service that has been left ends its shutdown."""
    async with linked("0") as (relay, link):
        for _ in range(CALLS):
            request = bytes(RELAYED_BYTES_MAX)
            link.start(pb.RELAYED_METHOD_CREATE_CHAT_COMPLETION, request, CALL, {})
        link.leave()
        relay.answers.put_nowait(pb.RelayResponse(credit_messages=CALLS))
        await until(lambda: sum(frames(relay.requests)) == CALLS)
        assert frames(relay.requests) == [3, 3, 3, 1]
        assert [request.leaving for request in relay.requests] == [False, False, False, True]


@pytest.mark.parametrize("seed", range(3))
async def test_messages_of_an_edge_never_exceed_its_credit_nor_break_the_contract(
    seed: int,
) -> None:
    """Calls start and end, and credit comes, at any time; then the edge leaves."""
    chance = random.Random(seed)  # noqa: S311 - reproducible
    async with linked("1") as (relay, link):
        credit, running = 1, list[RelayCall]()
        for _ in range(300):
            match chance.choice(["start", "start", "end", "credit", "wait"]):
                case "start":
                    request = bytes(chance.choice([0, RELAYED_BYTES_MAX]))
                    running.append(
                        link.start(pb.RELAYED_METHOD_CREATE_CHAT_COMPLETION, request, CALL, {})
                    )
                case "end" if running:
                    with running.pop(chance.randrange(len(running))):
                        pass
                case "credit":
                    credit += 1
                    relay.answers.put_nowait(pb.RelayResponse(credit_messages=1))
                case _:
                    await asyncio.sleep(chance.choice([0, 0.002]))
            assert len(relay.requests) <= credit
        link.leave()
        for call in running:
            with call:
                pass
        relay.answers.put_nowait(pb.RelayResponse(credit_messages=100))
        await until(relay.is_read.is_set)

    known = set[int]()
    for message in relay.requests:
        for frame in message.frames:
            assert frame.cancelled == (frame.call_id in known)
            known ^= {frame.call_id}
    assert not known
    assert [message for message in relay.requests if message.leaving] == relay.requests[-1:]


async def test_a_service_gives_credit_for_each_message_that_it_has_read() -> None:
    """With its next response, or with an empty one before the edge has to wait."""
    async with serving(ScriptedCore()) as (address, _), open_channel(address) as channel:
        rpc: Any = pb_grpc.RelayServiceStub(channel).Relay()
        assert dict(await rpc.initial_metadata())[CREDIT_HEADER] == str(CREDIT_MESSAGES)
        unknown = pb.RelayRequest(frames=[pb.EdgeFrame(call_id=1, cancelled=True)])
        async with asyncio.timeout(10):
            for _ in range(CALLS):
                for _ in range(CREDIT_MESSAGES):
                    await rpc.write(unknown)
                credit = 0
                while credit < CREDIT_MESSAGES:
                    response: pb.RelayResponse = await rpc.read()
                    credit += response.credit_messages
                assert credit == CREDIT_MESSAGES
                assert not response.frames
        rpc.cancel()
