"""Which candidate answers, over real sockets to providers that do as they are told."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, closing

import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2 as content
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.clock import SystemClock
from services.errors import Failure, UpstreamError
from services.providers.http import HttpClient
from services.providers.registry import DIALECTS
from services.providers.upstream import Upstream
from services.routing.budget import RETRIES_PER_S
from services.routing.catalog import Route
from services.routing.failover import ATTEMPTS_MAX, Failover, RouteRequest, StartedAnswer
from services.routing.health import ChannelHealth
from services.telemetry.calls import CallRecord
from tests.services.routing.targets import target
from tests.stand.clock import FakeClock
from tests.stand.upstream import CUT, SSE_HEAD, FakeUpstream, Script, json_answer, sse, stream

FINE = [
    stream(
        [
            {"choices": [{"index": 0, "delta": {"content": "fine"}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]
    )
]
BROKEN: Script = [json_answer({"error": {"message": "out of order"}}, 500)]
OVERLOADED = [json_answer({"error": {"message": "busy"}}, 503)]
MISSING = [json_answer({"error": {"message": "no", "code": "model_not_found"}}, 404)]
BAD_REQUEST = [json_answer({"error": {"message": "bad", "param": "stop"}}, 400)]
FAILS_AT_ONCE: Script = [SSE_HEAD + sse({"error": {"message": "overloaded", "code": 502}}), CUT]
FAILS_LATER: Script = [
    SSE_HEAD + sse({"choices": [{"index": 0, "delta": {"content": "some"}}]}),
    CUT,
]


class Setup:
    """A failover over providers with one script each."""

    def __init__(self, failover: Failover, upstreams: Sequence[FakeUpstream]) -> None:
        self.failover = failover
        self.upstreams = upstreams
        self.record = CallRecord(request_id="r", method="stream", opened_at=0)
        self.drawn: list[str] = []
        self.full: set[str] = set()

    def route(self, name: str = "public/m", upstreams: Iterable[int] | None = None) -> Route:
        """A model at some of the providers, tried in their order."""
        chosen = range(len(self.upstreams)) if upstreams is None else upstreams
        targets = [
            target(f"channel-{index}", priority=index, url=self.upstreams[index].url)
            for index in chosen
        ]
        return Route(model=name, base_model=name, targets=targets)

    async def ask(self, *routes: Route) -> tuple[StartedAnswer, list[str]]:
        """The answer, and its text."""
        spec = pb.ChatCompletionSpec(model="public/m")
        spec.messages.add(role=content.ROLE_USER).content.add().text = "Hello"
        inquiry = RouteRequest(
            spec=spec, routes=routes or [self.route()], draw=self._draw, record=self.record
        )
        with closing(await self.failover.open(inquiry)) as answer:
            texts = [chunk.delta.text for chunk in answer.first.chunks]
            async for batch in answer.rest:
                texts += [chunk.delta.text for chunk in batch.chunks]
        return answer, [text for text in texts if text]

    async def _draw(self, channel: str) -> None:
        if channel in self.full:
            raise Failure(reasons.ERROR_REASON_RATE_LIMIT_EXCEEDED, "Rate limit exceeded")
        self.drawn.append(channel)

    @property
    def asked(self) -> list[int]:
        """How often each provider was asked."""
        return [len(upstream.requests) for upstream in self.upstreams]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What is closed after the test."""
    async with AsyncExitStack() as stack:
        yield stack


async def setup(stack: AsyncExitStack, *scripts: Script) -> Setup:
    """Providers that play `scripts`, and a failover over them."""
    upstreams = []
    for script in scripts:
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.play(script)
        upstreams.append(upstream)
    http = HttpClient()
    stack.push_async_callback(http.close)
    clock = FakeClock()
    failover = Failover(
        Upstream(http, SystemClock()),
        DIALECTS,
        ChannelHealth(clock),
        clock,
        random.Random(1),  # noqa: S311
    )
    return Setup(failover, upstreams)


def keys_of(served: Setup, *keys: str) -> Route:
    """A model at the first provider, which gave us several keys."""
    url = served.upstreams[0].url
    targets = [target("a", url=url, keys=keys, key_number=number) for number in range(len(keys))]
    return Route(model="public/m", base_model="public/m", targets=targets)


@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_another_key_is_tried_where_one_is_refused(
    stack: AsyncExitStack, status: int
) -> None:
    """A refused key rests; the next call begins with the one that works."""
    served = await setup(stack, [json_answer({"error": {"message": "no"}}, status)])
    served.upstreams[0].play(FINE)
    route = keys_of(served, "one", "two")

    for _ in range(3):
        _, texts = await served.ask(route)
        assert texts == ["fine"]

    presented = [request.headers["authorization"] for request in served.upstreams[0].requests]
    assert len(presented) == 4
    assert presented[0] not in presented[1:]


async def test_another_key_helps_no_broken_channel(stack: AsyncExitStack) -> None:
    """A fault that is not the key's is not met with the same channel's other keys."""
    served = await setup(stack, BROKEN)

    with pytest.raises(UpstreamError):
        await served.ask(keys_of(served, "one", "two", "three"))

    assert served.asked == [1]


@pytest.mark.parametrize("fault", [BROKEN, OVERLOADED, MISSING, FAILS_AT_ONCE])
async def test_the_next_channel_answers_when_one_fails_before_the_first_token(
    stack: AsyncExitStack, fault: Script
) -> None:
    """A status, an error in the stream, a model that is not there: all the same to the caller."""
    served = await setup(stack, fault, FINE)

    answer, texts = await served.ask()

    assert answer.target.channel.name == "channel-1"
    assert texts == ["fine"]
    assert served.asked == [1, 1]
    assert [attempt.reason == "" for attempt in served.record.attempts] == [False, True]


async def test_no_other_channel_is_asked_after_the_first_token(stack: AsyncExitStack) -> None:
    """What the caller has cannot be taken back."""
    served = await setup(stack, FAILS_LATER, FINE)

    with pytest.raises(UpstreamError) as failed:
        await served.ask()

    assert failed.value.reason == reasons.ERROR_REASON_UPSTREAM_DISCONNECTED
    assert served.asked == [1, 0]


async def test_the_callers_fault_is_told_at_once(stack: AsyncExitStack) -> None:
    """Another provider would refuse the same request."""
    served = await setup(stack, BAD_REQUEST, FINE)

    with pytest.raises(UpstreamError) as failed:
        await served.ask()

    assert failed.value.param == "stop"
    assert served.asked == [1, 0]


async def test_three_attempts_are_enough(stack: AsyncExitStack) -> None:
    """However many channels there are."""
    served = await setup(stack, BROKEN, BROKEN, OVERLOADED, FINE)

    with pytest.raises(UpstreamError) as failed:
        await served.ask()

    assert failed.value.reason == reasons.ERROR_REASON_UPSTREAM_OVERLOADED
    assert sum(served.asked) == ATTEMPTS_MAX


async def test_a_missing_model_tells_less_than_a_failure(stack: AsyncExitStack) -> None:
    """The caller hears what may pass, and not that one channel lacks the model."""
    served = await setup(stack, OVERLOADED, MISSING)

    with pytest.raises(UpstreamError) as failed:
        await served.ask()

    assert failed.value.reason == reasons.ERROR_REASON_UPSTREAM_OVERLOADED


async def test_retries_are_bounded(stack: AsyncExitStack) -> None:
    """When everything fails, a fifth of the calls and a few a second are retried, no more."""
    served = await setup(stack, BROKEN, BROKEN)
    calls = 100
    for _ in range(calls):
        with pytest.raises(UpstreamError):
            await served.ask()

    assert calls < sum(served.asked) <= calls * 1.2 + RETRIES_PER_S


async def test_a_channel_over_its_limit_is_passed_over(stack: AsyncExitStack) -> None:
    """It is not asked, and that is no attempt."""
    served = await setup(stack, FINE, FINE)
    served.full = {"channel-0"}

    answer, _ = await served.ask()

    assert answer.target.channel.name == "channel-1"
    assert served.asked == [0, 1]
    assert served.drawn == ["channel-1"]


async def test_the_limit_is_told_where_all_channels_are_over_theirs(
    stack: AsyncExitStack,
) -> None:
    """The caller gets 429, and nobody was asked."""
    served = await setup(stack, FINE)
    served.full = {"channel-0"}

    with pytest.raises(Failure) as refused:
        await served.ask()

    assert refused.value.reason == reasons.ERROR_REASON_RATE_LIMIT_EXCEEDED
    assert served.asked == [0]


async def test_a_fallback_answers_under_its_own_name(stack: AsyncExitStack) -> None:
    """It is told in a note, and in the name of the model that answers."""
    served = await setup(stack, BROKEN, FINE)

    answer, texts = await served.ask(
        served.route("public/m", [0]), served.route("public/other", [1])
    )

    assert (answer.model, texts) == ("public/other", ["fine"])
    assert [(note.param, note.action) for note in answer.notes] == [
        ("model", pb.NOTE_ACTION_REPLACED)
    ]


async def test_leaving_closes_the_connection(stack: AsyncExitStack) -> None:
    """The provider sees it, and stops."""
    served = await setup(stack, FAILS_LATER[:1])
    spec = pb.ChatCompletionSpec(model="public/m")
    inquiry = RouteRequest(
        spec=spec, routes=[served.route()], draw=served._draw, record=served.record
    )

    with closing(await served.failover.open(inquiry)) as answer:
        assert answer.first.chunks[0].delta.text == "some"

    await served.upstreams[0].requests[0].left.wait()
