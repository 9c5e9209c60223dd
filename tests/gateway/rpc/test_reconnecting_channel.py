"""The channel to the service when the edge's certificate is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc

from gateway.rpc.reconnecting_channel import ReconnectingChannel
from gateway.rpc.service_channel import open_channel
from services.common.tls import ListenerTls, TargetTls
from services.rpc.listener import listening
from tests.services.common.test_tls_grpc import pair
from tests.stand.certificates import NAME, Certificates
from tests.stand.service import CountingChat


class Mirror(CountingChat):
    """Answers with the name in the caller's certificate; streams repeat it when told to go on."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()

    async def CreateChatCompletion(  # noqa: N802
        self,
        request: chat.CreateChatCompletionRequest,  # noqa: ARG002
        context: Any,
    ) -> chat.CreateChatCompletionResponse:
        """Return the name as the completion's ID."""
        (name,) = context.auth_context()["peer_dns"]
        return chat.CreateChatCompletionResponse(completion_id=name.decode())

    async def StreamChatCompletion(  # noqa: N802
        self,
        request: chat.StreamChatCompletionRequest,  # noqa: ARG002
        context: Any,
    ) -> AsyncIterator[chat.StreamChatCompletionResponse]:
        """Send the name twice."""
        (name,) = context.auth_context()["peer_dns"]
        started = chat.CompletionStarted(completion_id=name.decode())
        message = chat.StreamChatCompletionResponse(
            chunks=[chat.ChatCompletionChunk(started=started)]
        )
        yield message
        await self.goes_on.wait()
        yield message


class Edge:
    """A channel with its files and a service."""

    def __init__(self, files: Certificates, channel: grpc.aio.Channel, mirror: Mirror) -> None:
        assert isinstance(channel, ReconnectingChannel)
        self.files = files
        self.channel = channel
        self.mirror = mirror
        self.stub = chat_grpc.ChatCompletionServiceStub(channel)

    async def seen_as(self) -> str:
        """Return the name that a call of the service sees."""
        answer = await self.stub.CreateChatCompletion(
            chat.CreateChatCompletionRequest(), timeout=10
        )
        return answer.completion_id


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge whose certificate is for `one.svc`."""
    files, mirror = Certificates(tmp_path), Mirror()
    tls = ListenerTls(**pair(files.issue("server")), client_ca=files.ca)
    shown = TargetTls(ca=files.ca, **pair(files.issue("edge", None, "one.svc")))
    options = (("grpc.ssl_target_name_override", NAME),)

    def register(server: grpc.aio.Server) -> None:
        chat_grpc.add_ChatCompletionServiceServicer_to_server(mirror, server)

    async with (
        listening(register, "127.0.0.1:0", tls=tls, grace_s=0) as address,
        open_channel(address, tls=shown, extra_options=options) as channel,
    ):
        yield Edge(files, channel, mirror)


async def test_new_calls_show_a_replaced_certificate(edge: Edge) -> None:
    """Streams in flight end on the old connection."""
    assert await edge.seen_as() == "one.svc"
    stream = aiter(edge.stub.StreamChatCompletion(chat.StreamChatCompletionRequest()))
    first = await anext(stream)

    edge.files.issue("edge", None, "two.svc")
    edge.channel.reconnect_if_changed()

    assert await edge.seen_as() == "two.svc"
    edge.mirror.goes_on.set()
    assert await anext(stream) == first
    assert first.chunks[0].started.completion_id == "one.svc"


async def test_half_written_files_change_nothing(edge: Edge) -> None:
    """A certificate without its key is not used; once both are there, they are."""
    before = edge.channel.current
    key = edge.files.write("edge.key", b"-----BEGIN")
    edge.channel.reconnect_if_changed()
    assert edge.channel.current is before
    key.unlink()
    edge.channel.reconnect_if_changed()
    assert edge.channel.current is before
    assert await edge.seen_as() == "one.svc"

    edge.files.issue("edge", None, "two.svc")
    edge.channel.reconnect_if_changed()
    assert await edge.seen_as() == "two.svc"


async def test_unchanged_files_keep_the_connection(edge: Edge) -> None:
    """No channel is opened while the files are the same."""
    before = edge.channel.current
    edge.channel.reconnect_if_changed()

    assert edge.channel.current is before


async def test_closing_right_after_a_change_closes_the_old_channel() -> None:
    """The task that waits for its calls may not have begun yet."""
    opened: list[grpc.aio.Channel] = []

    def open_one() -> grpc.aio.Channel:
        opened.append(grpc.aio.insecure_channel("127.0.0.1:9"))
        return opened[-1]

    versions = iter(["one", "two"])
    async with ReconnectingChannel(open_one, lambda: next(versions)) as channel:
        channel.reconnect_if_changed()

    assert len(opened) == 2
    assert {each.get_state() for each in opened} == {grpc.ChannelConnectivity.SHUTDOWN}


async def test_files_are_checked_in_the_background() -> None:
    """Closing the channel closes all that it has opened."""
    opened: list[grpc.aio.Channel] = []
    another = asyncio.Event()

    def open_one() -> grpc.aio.Channel:
        opened.append(grpc.aio.insecure_channel("127.0.0.1:9"))
        if len(opened) > 1:
            another.set()
        return opened[-1]

    versions = iter(["one", "one"])
    async with ReconnectingChannel(
        open_one, lambda: next(versions, "two"), check_interval_s=0.001
    ) as channel:
        await asyncio.wait_for(another.wait(), 10)
    assert channel.current is opened[1]
    assert len(opened) == 2
    assert {each.get_state() for each in opened} == {grpc.ChannelConnectivity.SHUTDOWN}
