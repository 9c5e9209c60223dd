"""Channels that operators disable: in all processes, after restarts, until a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.accounts.v1 import audit_service_pb2 as audit
from pomogator.accounts.v1 import audit_service_pb2_grpc as audit_grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc
from prometheus_client import generate_latest

from services.clock import Clock
from services.config import ChannelConfig, Config, ModelConfig
from services.serving.server import SYSTEM_CLOCK
from tests.stand.clock import FakeClock
from tests.stand.gateway import Gateway, running_config, stored
from tests.stand.held_provider import ASKED, MODEL, PATH
from tests.stand.response import read
from tests.stand.upstream import FakeUpstream, json_answer

WHOLE = {
    "id": "1",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@asynccontextmanager
async def two_channels(
    state: Path, upstream: FakeUpstream, url: str = "", clock: Clock = SYSTEM_CLOCK
) -> AsyncIterator[Gateway]:
    """A gateway with the channels `first` and `second` for one model."""
    upstream.play([json_answer(WHOLE)])
    channels = tuple(
        ChannelConfig(
            name=name, dialect="openai", base_url=f"{upstream.url}/{name}",
            models={MODEL: "m"}, priority=priority,
        )
        for priority, name in enumerate(("first", "second"))
    )  # fmt: skip
    model = ModelConfig(name=MODEL)
    config = Config(channels=channels, models=(model,), state=stored(url))
    async with running_config(state, config, clock=clock) as gateway:
        yield gateway


@asynccontextmanager
async def operations(gateway: Gateway) -> AsyncIterator[Any]:
    """A stub of the operators' service."""
    async with gateway.service.operators_channel() as channel:
        yield pb_grpc.OperationsServiceStub(channel)


async def served_by(gateway: Gateway, upstream: FakeUpstream) -> str:
    """Return the channel that answers a call; of a refused one, its code."""
    async with gateway.http.post(gateway.url + PATH, json=ASKED) as answer:
        reply = await read(answer)
    if reply.status != 200:
        return str(reply.code)
    return upstream.requests[-1].path.split("/")[2]


def off(channel: str, **fields: Any) -> pb.DisableChannelRequest:
    """Return a request to disable a channel."""
    return pb.DisableChannelRequest(channel=channel, reason="their bill is wrong", **fields)


async def test_calls_go_past_a_disabled_channel(tmp_path: Path, each_database_url: str) -> None:
    """To the other one until it is enabled; operators see it; both changes are in the audit log."""
    async with (
        FakeUpstream() as upstream,
        two_channels(tmp_path, upstream, each_database_url) as gateway,
        operations(gateway) as stub,
    ):
        assert await served_by(gateway, upstream) == "first"
        await stub.DisableChannel(off("first"))
        assert await served_by(gateway, upstream) == "second"

        listed = (await stub.ListChannels(pb.ListChannelsRequest())).channels
        assert {one.channel: one.disablement.reason for one in listed} == {
            "first": "their bill is wrong", "second": "",
        }  # fmt: skip
        spec = chat.ChatCompletionSpec(model=MODEL)
        spec.messages.add(role=1).content.add(text="Hello")
        explained = await stub.ExplainChatCompletion(pb.ExplainChatCompletionRequest(spec=spec))
        disabled = {one.channel: one.HasField("disablement") for one in explained.candidates}
        assert disabled == {"first": True, "second": False}
        metrics = generate_latest(gateway.service.registry).decode()
        assert 'pomogator_channel_disabled{channel="first"} 1' in metrics

        await stub.DisableChannel(off("second"))
        assert await served_by(gateway, upstream) == "upstream_unreachable"
        await stub.EnableChannel(pb.EnableChannelRequest(channel="first"))
        assert await served_by(gateway, upstream) == "first"
        async with gateway.service.operators_channel() as channel:
            log: Any = audit_grpc.AuditServiceStub(channel)
            entries = (await log.ListAuditEntries(audit.ListAuditEntriesRequest())).audit_entries
        assert [(one.method, one.resource) for one in entries][:-1] == [  # The first key is last.
            ("OperationsService.EnableChannel", "channels/first"),
            ("OperationsService.DisableChannel", "channels/second"),
            ("OperationsService.DisableChannel", "channels/first"),
        ]


async def test_only_channels_of_the_configuration_are_disabled(tmp_path: Path) -> None:
    """Another name, no reason, and a time in the past are refused."""
    async with (
        FakeUpstream() as upstream,
        two_channels(tmp_path, upstream) as gateway,
        operations(gateway) as stub,
    ):
        for request, code in (
            (off("third"), grpc.StatusCode.NOT_FOUND),
            (pb.DisableChannelRequest(channel="first"), grpc.StatusCode.INVALID_ARGUMENT),
            (off("first", expire_time=Timestamp(seconds=1)), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.DisableChannel(request)
            assert refused.value.code() == code
        assert await served_by(gateway, upstream) == "first"


async def test_a_channel_stays_disabled_after_a_restart_until_its_time(tmp_path: Path) -> None:
    """A new process on the database knows it before its first call, and forgets it in time."""
    clock = FakeClock()
    until_s = round(clock.time()) + 1000
    async with FakeUpstream() as upstream:
        async with (
            two_channels(tmp_path, upstream, clock=clock) as gateway,
            operations(gateway) as stub,
        ):
            await stub.DisableChannel(off("first", expire_time=Timestamp(seconds=until_s)))
        async with two_channels(tmp_path, upstream, clock=clock) as gateway:
            assert await served_by(gateway, upstream) == "second"
            clock.advance(1001)
            async with operations(gateway) as stub:
                # Any change makes each process read the switches again.
                await stub.EnableChannel(pb.EnableChannelRequest(channel="second"))
            assert await served_by(gateway, upstream) == "first"


async def test_a_switch_reaches_the_other_replicas(tmp_path: Path, postgres_url: str) -> None:
    """A channel that is disabled at one service gets no more calls from the other."""
    async with (
        FakeUpstream() as upstream,
        two_channels(tmp_path, upstream, postgres_url) as one,
        operations(one) as stub,
        two_channels(tmp_path, upstream, postgres_url) as other,
    ):
        assert await served_by(other, upstream) == "first"
        await stub.DisableChannel(off("first"))
        while await served_by(other, upstream) == "first":
            continue  # The notice is on its way.
        assert await served_by(other, upstream) == "second"
