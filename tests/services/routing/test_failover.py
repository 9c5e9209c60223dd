"""Failover over real sockets, to providers with scripts."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, closing, suppress

import pytest

from services.clock import SystemClock
from services.common.plain_metrics import PlainMetrics
from services.domain.completion import WholeAnswer
from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.events import TextDelta
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure, UpstreamError
from services.providers.base import Decoder, ModelRoute, Target
from services.providers.http import HttpClient
from services.providers.registry import DIALECTS
from services.providers.upstream import Upstream
from services.routing.affinity import SessionAffinity
from services.routing.attempts import ATTEMPTS_MAX, CallAttempts, Failover
from services.routing.budget import RETRIES_PER_S
from services.routing.completion_form import CompletionForm
from services.routing.health import ChannelHealth
from services.routing.request_form import StartedAnswer
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
    """A failover with one script for each provider."""

    def __init__(self, failover: Failover, upstreams: Sequence[FakeUpstream]) -> None:
        self.failover = failover
        self.upstreams = upstreams
        self.record = CallRecord(request_id="r", method="stream", opened_at=0)
        self.taken: list[str] = []
        self.over_limit: set[str] = set()
        self.abandoned: list[str] = []
        self.cut: list[str] = []

    def route(self, name: str = "public/m", upstreams: Iterable[int] | None = None) -> ModelRoute:
        """Return a model at some of the providers, tried in their order."""
        chosen = range(len(self.upstreams)) if upstreams is None else upstreams
        targets = [
            target(f"channel-{index}", priority=index, url=self.upstreams[index].url)
            for index in chosen
        ]
        return ModelRoute(model=name, base_model=name, targets=targets)

    async def ask(self, *routes: ModelRoute) -> tuple[StartedAnswer, list[str]]:
        """Return the answer, and its text."""
        message = Message(role="user", content=[TextPart(text="Hello")])
        spec = ChatCompletionSpec(model="public/m", messages=[message])
        attempts = CallAttempts(
            failover=self.failover,
            form=CompletionForm(spec=spec, dialects=DIALECTS),
            routes=routes or [self.route()],
            charges=self,
            record=self.record,
        )
        answer = await attempts.open()
        with closing(answer.rest):
            first = answer.first
            events = first.events() if isinstance(first, WholeAnswer) else first
            async for batch in answer.rest:
                events += batch
        return answer, [event.text for event in events if isinstance(event, TextDelta)]

    async def take_channel_limits(self, channel: str) -> None:
        """Refuse channels that are over their limit."""
        if channel in self.over_limit:
            raise Failure(ErrorReason.RATE_LIMIT_EXCEEDED, "Rate limit exceeded")
        self.taken.append(channel)

    def abandon(self, target: Target, decoder: Decoder, thinking_tokens: int) -> None:  # noqa: ARG002
        """Note the channel that had the request when the call was cancelled."""
        self.abandoned.append(target.channel.name)

    leave_unread = charge_overlong = abandon

    def cut_attempt(self, target: Target, decoder: Decoder) -> None:  # noqa: ARG002
        """Note the channel whose attempt the deadline has cut."""
        self.cut.append(target.channel.name)

    def miss_answer(self, target: Target, decoder: Decoder) -> None:
        """See `services.routing.request_form.AttemptCharges`."""

    @property
    def asked(self) -> list[int]:
        """The number of requests to each provider."""
        return [len(upstream.requests) for upstream in self.upstreams]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Contexts that are closed after the test."""
    async with AsyncExitStack() as stack:
        yield stack


async def setup(stack: AsyncExitStack, *scripts: Script) -> Setup:
    """Start providers that play `scripts`, and make a failover over them."""
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
        random.Random(1),  # noqa: S311
        SessionAffinity(str.encode, clock, PlainMetrics("test")),
    )
    return Setup(failover, upstreams)


def keys_of(served: Setup, *keys: str) -> ModelRoute:
    """Return a model at the first provider, with several keys."""
    url = served.upstreams[0].url
    targets = [target("a", url=url, keys=keys, key_number=number) for number in range(len(keys))]
    return ModelRoute(model="public/m", base_model="public/m", targets=targets)


@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_another_key_is_tried_where_one_is_refused(
    stack: AsyncExitStack, status: int
) -> None:
    """The refused key's breaker opens; the next call begins with the key that works."""
    served = await setup(stack, [json_answer({"error": {"message": "no"}}, status)])
    served.upstreams[0].play(FINE)
    route = keys_of(served, "one", "two")

    for _ in range(3):
        _, texts = await served.ask(route)
        assert texts == ["fine"]

    presented = [request.headers["authorization"] for request in served.upstreams[0].requests]
    assert len(presented) == 4
    assert presented[0] not in presented[1:]


async def test_other_keys_of_a_failing_channel_are_not_tried(stack: AsyncExitStack) -> None:
    """Where the fault is not the key's."""
    served = await setup(stack, BROKEN)

    with pytest.raises(UpstreamError):
        await served.ask(keys_of(served, "one", "two", "three"))

    assert served.asked == [1]


@pytest.mark.parametrize("fault", [BROKEN, OVERLOADED, MISSING, FAILS_AT_ONCE])
async def test_the_next_channel_answers_when_one_fails_before_the_first_token(
    stack: AsyncExitStack, fault: Script
) -> None:
    """After an error status, an error in the stream, or a missing model."""
    served = await setup(stack, fault, FINE)

    answer, texts = await served.ask()

    assert answer.target.channel.name == "channel-1"
    assert texts == ["fine"]
    assert served.asked == [1, 1]
    assert [attempt.reason == "" for attempt in served.record.attempts] == [False, True]


async def test_no_other_channel_is_asked_after_the_first_token(stack: AsyncExitStack) -> None:
    """Tokens that the caller has received cannot be taken back."""
    served = await setup(stack, FAILS_LATER, FINE)

    with pytest.raises(UpstreamError) as failed:
        await served.ask()

    assert failed.value.reason == ErrorReason.UPSTREAM_DISCONNECTED
    assert served.asked == [1, 0]


async def test_a_fault_of_the_request_is_not_retried(stack: AsyncExitStack) -> None:
    """Another provider would refuse it, too."""
    served = await setup(stack, BAD_REQUEST, FINE)

    with pytest.raises(UpstreamError) as failed:
        await served.ask()

    assert failed.value.param == "stop"
    assert served.asked == [1, 0]


async def test_a_call_makes_at_most_three_attempts(stack: AsyncExitStack) -> None:
    """However many channels serve the model."""
    served = await setup(stack, BROKEN, BROKEN, OVERLOADED, FINE)

    with pytest.raises(UpstreamError) as failed:
        await served.ask()

    assert failed.value.reason == ErrorReason.UPSTREAM_OVERLOADED
    assert sum(served.asked) == ATTEMPTS_MAX


async def test_a_failure_takes_precedence_over_a_missing_model(stack: AsyncExitStack) -> None:
    """The caller gets the failure that may pass, not that one channel lacks the model."""
    served = await setup(stack, OVERLOADED, MISSING)

    with pytest.raises(UpstreamError) as failed:
        await served.ask()

    assert failed.value.reason == ErrorReason.UPSTREAM_OVERLOADED


async def test_retries_are_bounded(stack: AsyncExitStack) -> None:
    """When everything fails, a fifth of the calls and ten a second are retried, no more."""
    served = await setup(stack, BROKEN, BROKEN)
    calls = 100
    for _ in range(calls):
        with pytest.raises(UpstreamError):
            await served.ask()

    assert calls < sum(served.asked) <= calls * 1.2 + RETRIES_PER_S


async def test_a_channel_over_its_limit_is_skipped(stack: AsyncExitStack) -> None:
    """It gets no request, and that is no attempt."""
    served = await setup(stack, FINE, FINE)
    served.over_limit = {"channel-0"}

    answer, _ = await served.ask()

    assert answer.target.channel.name == "channel-1"
    assert served.asked == [0, 1]
    assert served.taken == ["channel-1"]


async def test_a_call_is_refused_where_all_channels_are_over_their_limit(
    stack: AsyncExitStack,
) -> None:
    """With RATE_LIMIT_EXCEEDED, and without a request to a provider."""
    served = await setup(stack, FINE)
    served.over_limit = {"channel-0"}

    with pytest.raises(Failure) as refused:
        await served.ask()

    assert refused.value.reason == ErrorReason.RATE_LIMIT_EXCEEDED
    assert served.asked == [0]


async def test_a_call_adds_its_share_to_the_retry_budget_once(stack: AsyncExitStack) -> None:
    """However many channels are over their limit, and whether one answers."""
    served = await setup(stack, FINE, FINE, FINE)

    for over_limit in ((), (0, 1), (0, 1, 2)):
        served.over_limit = {f"channel-{number}" for number in over_limit}
        with suppress(Failure):
            await served.ask()

    assert served.failover.budget.calls == 3


async def test_a_fallback_answers_under_its_own_name(stack: AsyncExitStack) -> None:
    """The answer has its name, and a note."""
    served = await setup(stack, BROKEN, FINE)

    answer, texts = await served.ask(
        served.route("public/m", [0]), served.route("public/other", [1])
    )

    assert (answer.model, texts) == ("public/other", ["fine"])
    assert [(note.param, note.action) for note in answer.notes] == [("model", "replaced")]


async def test_closing_an_answer_closes_the_connection(stack: AsyncExitStack) -> None:
    """So that the provider stops."""
    served = await setup(stack, FAILS_LATER[:1])
    spec = ChatCompletionSpec(model="public/m")
    attempts = CallAttempts(
        failover=served.failover,
        form=CompletionForm(spec=spec, dialects=DIALECTS),
        routes=[served.route()],
        charges=served,
        record=served.record,
    )

    answer = await attempts.open()
    with closing(answer.rest):
        assert answer.first == [TextDelta("some")]

    await served.upstreams[0].requests[0].left.wait()
