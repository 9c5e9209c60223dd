"""OperationsService."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import grpc
import msgspec
import pytest
from google.protobuf.message import Message
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.chat.v1 import content_pb2 as content
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc

from services.config import ChannelConfig, Config, ConfigError, ModelConfig, Secret
from services.routing.health import PRIOR_CALLS
from services.serving.server import open_service
from services.serving.service import Service
from tests.stand.upstream import FakeUpstream, json_answer

MODEL = "house/model"
KEY = "sk-canary-6f03"


def config(*more: ChannelConfig, fallbacks: tuple[str, ...] = ()) -> Config:
    """Build a configuration of two channels for one model, one of them with two keys."""
    first = ChannelConfig(
        name="first",
        dialect="openai",
        base_url="http://a.test/v1",
        models={MODEL: "m"},
        key=Secret(KEY),
        spare_keys=(Secret(f"{KEY}-2"),),
    )
    second = ChannelConfig(
        name="second",
        dialect="anthropic",
        base_url="http://b.test/v1",
        models={MODEL: "claude-sonnet-4-5"},
        priority=1,
        key=Secret(KEY),
    )
    model = ModelConfig(
        name=MODEL,
        prompt_usd_per_mtok=Decimal(3),
        completion_usd_per_mtok=Decimal(15),
        fallbacks=fallbacks,
    )
    return Config(channels=(first, second, *more), models=(model,))


class Source:
    """Source of a configuration that changes."""

    def __init__(self) -> None:
        self.config = config()
        self.problem = ""

    def read(self) -> Config:
        """Return the configuration, or raise its error."""
        if self.problem:
            raise ConfigError(self.problem)
        return self.config


@asynccontextmanager
async def asking(
    state: Path, source: Source
) -> AsyncIterator[tuple[Service, pb_grpc.OperationsServiceStub]]:
    """Open a stub for a service with this configuration."""
    async with (
        open_service(source.config, state, {}, read=source.read) as service,
        service.operators_channel() as channel,
    ):
        yield service, pb_grpc.OperationsServiceStub(channel)


def spec(model: str = MODEL) -> chat.ChatCompletionSpec:
    """Build a completion with a token limit."""
    asked = chat.ChatCompletionSpec(model=model, max_tokens=100)
    asked.messages.add(role=content.ROLE_USER).content.add().text = "Hello"
    return asked


def explained(message: Message) -> str:
    """Return a response as text."""
    return str(message)


async def test_explain_lists_the_candidates(tmp_path: Path) -> None:
    """Candidates come in order, one for each key, with their requests and without secrets."""
    async with asking(tmp_path, Source()) as (_, operations):
        answer = await operations.ExplainChatCompletion(
            pb.ExplainChatCompletionRequest(spec=spec())
        )

    assert [place.channel for place in answer.candidates] == ["first", "first", "second"]
    assert sorted(place.key_number for place in answer.candidates) == [0, 0, 1]
    assert {(place.weight, place.score) for place in answer.candidates[:2]} == {(0.5, 1.0)}
    first, _, second = answer.candidates
    assert (first.url, second.url) == (
        "http://a.test/v1/chat/completions",
        "http://b.test/v1/messages",
    )
    assert json.loads(first.body)["max_tokens"] == 100
    assert json.loads(second.body)["model"] == "claude-sonnet-4-5"
    assert first.breaker_state == pb.BREAKER_STATE_CLOSED
    assert first.prices.completion_pico_usd == 15_000_000
    assert answer.max_token_count == 100
    tokens = answer.prompt_token_count
    assert answer.hold_nano_usd == tokens * 3_000 + 100 * 15_000
    assert KEY not in explained(answer)


async def test_explain_calls_no_provider(tmp_path: Path) -> None:
    """No provider gets a request, and no limit or health of a channel changes."""
    source = Source()
    async with FakeUpstream() as upstream:
        first, second = (
            msgspec.structs.replace(channel, base_url=upstream.url)
            for channel in source.config.channels
        )
        source.config = msgspec.structs.replace(source.config, channels=(first, second))
        async with asking(tmp_path, source) as (service, operations):
            answer = await operations.ExplainChatCompletion(
                pb.ExplainChatCompletionRequest(spec=spec())
            )
            metrics = service.registry
            taken = [
                metrics.get_sample_value(f"pomogator_{name}")
                for name in ("holds_open", "upstream_connections", "limit_leases")
            ]

        assert [place.url.startswith(upstream.url) for place in answer.candidates] == [True] * 3
        assert upstream.requests == []
        assert taken == [0, 0, 0]


async def test_explain_includes_fallback_models(tmp_path: Path) -> None:
    """Fallbacks come after the model's own targets, and dearer ones raise the hold."""
    source = Source()
    other = ChannelConfig(
        name="other", dialect="openai", base_url="http://c.test/v1", models={"house/other": "o"}
    )
    source.config = config(other, fallbacks=("house/other",))
    async with asking(tmp_path, source) as (_, operations):
        answer = await operations.ExplainChatCompletion(
            pb.ExplainChatCompletionRequest(spec=spec())
        )

    assert [place.model for place in answer.candidates] == [*[MODEL] * 3, "house/other"]


async def test_explain_refuses_like_a_call(tmp_path: Path) -> None:
    """An unknown model and an empty part are refused as in a call."""
    with_empty_part = spec()
    with_empty_part.messages[0].content.add()
    async with asking(tmp_path, Source()) as (_, operations):
        for faulty in (spec("no/model"), with_empty_part):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await operations.ExplainChatCompletion(pb.ExplainChatCompletionRequest(spec=faulty))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_reload_replaces_the_configuration(tmp_path: Path) -> None:
    """A new configuration applies at once, and an invalid one is refused with the reason."""
    source = Source()
    async with asking(tmp_path, source) as (_, operations):
        source.problem = "pomogator.toml: channels[0]: is wrong"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await operations.ReloadConfiguration(pb.ReloadConfigurationRequest())
        assert refused.value.details() == source.problem

        source.problem = ""
        only = msgspec.structs.replace(source.config, channels=source.config.channels[1:])
        source.config = only
        await operations.ReloadConfiguration(pb.ReloadConfigurationRequest())
        answer = await operations.ExplainChatCompletion(
            pb.ExplainChatCompletionRequest(spec=spec())
        )

    assert [place.channel for place in answer.candidates] == ["second"]


async def test_channels_are_listed_with_their_status(tmp_path: Path) -> None:
    """Each key of each channel has its score, and the time until its breaker lets a probe pass."""
    upstream = FakeUpstream()
    async with upstream:
        upstream.play([json_answer({"error": {"message": "busy"}}, 429, retry_after="30")])
        source = Source()
        first, *others = source.config.channels
        first = msgspec.structs.replace(first, base_url=upstream.url, spare_keys=())
        source.config = msgspec.structs.replace(source.config, channels=(first, *others))
        async with asking(tmp_path, source) as (service, operations):
            key = await service.key_maker.make_first()
            async with service.channel() as public:
                call = chat_grpc.ChatCompletionServiceStub(public).CreateChatCompletion(
                    chat.CreateChatCompletionRequest(spec=spec()),
                    metadata=(("authorization", f"Bearer {key}"),),
                    timeout=5,
                )
                with pytest.raises(grpc.aio.AioRpcError):
                    await call
            answer = await operations.ListChannels(pb.ListChannelsRequest(model=MODEL))
            everything = await operations.ListChannels(pb.ListChannelsRequest())
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await operations.ListChannels(pb.ListChannelsRequest(model="house/none"))

    sick, well = answer.channels
    assert (sick.channel, sick.breaker_state) == ("first", pb.BREAKER_STATE_OPEN)
    assert 25 < sick.rest.seconds <= 30
    assert sick.error_rate == pytest.approx(1 / (1 + PRIOR_CALLS), rel=0.01)
    assert sick.score == pytest.approx((1 - sick.error_rate) ** 2, rel=0.01)
    assert sick.last_failure == "UPSTREAM_RATE_LIMITED (HTTP 429)"
    assert abs(sick.last_failure_time.seconds - time.time()) < 60
    assert (well.channel, well.priority) == ("second", 1)
    assert unknown.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(everything.channels) == 2
