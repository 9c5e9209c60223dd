"""Answers with random members, through the whole gateway: nothing is lost, nothing crashes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc
from pomogator.chat.v1 import content_pb2

from services.common.contract.chat import read_completion
from services.common.contract.chat_events import read_batch
from services.completions.fold import Fold
from services.config import ChannelConfig
from services.rpc.listener import listening
from tests.nightly.answer_members import MAKERS, check_promised, collected, rendered, stream_of
from tests.nightly.planted_answers import PlantedAnswer
from tests.stand.gateway import Gateway, running
from tests.stand.response import read
from tests.stand.upstream import FakeUpstream, Request, answer, json_answer

ANSWERS = 40


class Provider(FakeUpstream):
    """A provider that answers with `planted`, in the form that was asked for."""

    planted: PlantedAnswer

    def respond(self, request: Request) -> list[bytes]:
        """Return the response."""
        if request.json().get("stream"):
            return [answer(stream_of(self.planted.chunks), content_type="text/event-stream")]
        return [json_answer(self.planted.body)]


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A provider."""
    async with Provider() as upstream:
        upstream.play(upstream.respond)
        yield upstream


@pytest.fixture
async def gateway(tmp_path: Path, provider: Provider) -> AsyncIterator[Gateway]:
    """A gateway with a channel of each dialect."""
    channels = [
        ChannelConfig(name=name, dialect=name, base_url=provider.url, models={name: "m"})
        for name in MAKERS
    ]
    async with running(tmp_path, *channels) as made:
        yield made


@pytest.mark.parametrize("dialect", MAKERS)
async def test_rest_callers_get_every_member(
    gateway: Gateway, provider: Provider, dialect: str
) -> None:
    """Whole and streamed."""
    url = f"{gateway.base_url}/chat/completions"
    body = {"model": dialect, "messages": [{"role": "user", "content": "Hi"}]}
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    for number in range(ANSWERS):
        provider.planted = MAKERS[dialect](random.Random(number))  # noqa: S311 - no secret
        for options in ({}, streaming):
            async with gateway.http.post(url, json=body | options) as response:
                given = await read(response)
            assert given.status == 200, given.text
            found = collected(given.body) if given.streamed else given.json
            check_promised(provider.planted, found)


@pytest.mark.parametrize("dialect", MAKERS)
async def test_callers_of_stubs_get_every_member(
    gateway: Gateway, provider: Provider, dialect: str
) -> None:
    """A whole answer is the fold of a stream."""
    metadata = (("authorization", f"Bearer {gateway.key}"),)
    part = content_pb2.ContentPart(text="Hi")
    user = content_pb2.Message(role=content_pb2.ROLE_USER, content=[part])
    spec = pb.ChatCompletionSpec(model=dialect, messages=[user])
    async with (
        listening(gateway.service.register, "127.0.0.1:0", grace_s=0) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = pb_grpc.ChatCompletionServiceStub(channel)
        for number in range(ANSWERS):
            provider.planted = MAKERS[dialect](random.Random(number))  # noqa: S311 - as above
            request = pb.CreateChatCompletionRequest(spec=spec)
            whole = read_completion(await stub.CreateChatCompletion(request, metadata=metadata))
            check_promised(provider.planted, rendered(whole))
            fold = Fold()
            streaming = pb.StreamChatCompletionRequest(spec=spec)
            async for message in stub.StreamChatCompletion(streaming, metadata=metadata):
                fold.add(read_batch(message))
            check_promised(provider.planted, rendered(fold.answer))
