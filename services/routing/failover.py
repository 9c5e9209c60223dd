"""Tries the candidates in turn until one begins to answer; after that, never again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.clock import Chance, Clock
from services.config import ChannelConfig
from services.errors import Failure, UpstreamError
from services.providers.base import Batch, Decoder, Dialect, Notes, Target, UpstreamRequest
from services.providers.upstream import Relay, Upstream
from services.routing.budget import RetryBudget
from services.routing.catalog import Route
from services.routing.choice import order
from services.routing.health import ChannelHealth
from services.telemetry.calls import CallRecord

ATTEMPTS_MAX = 3
"""Requests to providers that one call may cause."""


class StartedAnswer(msgspec.Struct, frozen=True):
    """An answer that has begun. To be closed, however it ends."""

    model: str
    """The public name of the model that answers."""
    target: Target
    """Where it answers."""
    notes: Sequence[pb.Note]
    """What was changed on the way to it."""
    first: Batch
    """What came first. Not empty."""
    rest: Relay
    """What comes after. Raises UpstreamError where the answer breaks off."""
    decoder: Decoder
    """Knows the usage that was reported so far."""

    def close(self) -> None:
        """Tells the provider to stop, unless it has said everything. Never waits."""
        self.rest.close()


class RouteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask, and of whom."""

    spec: pb.ChatCompletionSpec
    """What was asked for."""
    routes: Sequence[Route]
    """The model, then those that may answer in its place."""
    draw: Callable[[str], Awaitable[None]]
    """Draws on the limits of the channel of that name; raises Failure where they are used up."""
    record: CallRecord
    """Learns of every attempt."""
    left_s: Callable[[], float | None] = lambda: None
    """Seconds until the caller gives up; None: it has not said."""
    strict: bool = False
    """Whether to refuse what cannot be honoured."""
    stream: bool = True
    """Whether the caller wants pieces."""


class Failover:
    """Opens answers."""

    def __init__(
        self,
        upstream: Upstream,
        dialects: Mapping[str, Dialect],
        health: ChannelHealth,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._upstream = upstream
        self._dialects = dialects
        self._health = health
        self._clock = clock
        self._chance = chance
        self.budget = RetryBudget(clock)

    async def open(self, inquiry: RouteRequest) -> StartedAnswer:
        """An answer to the inquiry, which the caller is to close.

        Raises Failure where no candidate can be asked, and UpstreamError where none
        answered: the caller's fault at once, a channel's when no attempt is left.
        """
        self.budget.earn()
        trouble = _Trouble()
        attempts = 0
        for model, target, notes, request in self._candidates(inquiry, trouble):
            if trouble.concerns(target.channel):
                continue
            if attempts == ATTEMPTS_MAX or (attempts and not self.budget.spend()):
                break
            left_s = inquiry.left_s()
            if left_s is not None and left_s <= (self._health.latency_s(target) if attempts else 0):
                # It cannot finish; who is asked in vain bills all the same.
                raise trouble.worst if attempts else _too_late()
            try:
                await inquiry.draw(target.channel.name)
            except Failure as full:
                trouble.refusal = full
                continue
            attempts += 1
            headers = inquiry.record.tried(target)
            dialect = self._dialects[target.channel.dialect]
            decoder = dialect.decoder(target)
            relay = self._upstream.relay(_bearing(request, headers), target, dialect, decoder)
            try:
                first = await self._first(target, relay, streamed=request.streamed)
            except UpstreamError as error:
                inquiry.record.attempt_failed(error)
                if not error.row.retryable:
                    raise
                trouble.failed(target.channel, error)
                continue
            return StartedAnswer(model, target, notes.all, first, relay, decoder)
        raise trouble.worst

    def broke_off(self, answer: StartedAnswer, record: CallRecord, error: UpstreamError) -> None:
        """The answer failed after it had begun. Nobody else is asked, but it is not forgotten."""
        record.attempt_failed(error)
        self._health.broke_off(answer.target, error)

    def _candidates(
        self, inquiry: RouteRequest, trouble: _Trouble
    ) -> Iterator[tuple[str, Target, Notes, UpstreamRequest]]:
        """The places to ask, in the order in which to ask them, and what to send there."""
        asked = inquiry.routes[0]
        for route in inquiry.routes:
            for target in order(route.targets, self._health, self._chance):
                notes = Notes(strict=inquiry.strict)
                if route is not asked:
                    notes.replaced("model", f"`{route.model}` answers in its place.")
                dialect = self._dialects[target.channel.dialect]
                try:
                    request = dialect.encode(inquiry.spec, target, notes, stream=inquiry.stream)
                except Failure as refusal:
                    # What this model cannot do, the same model may do at another channel.
                    trouble.refusal = trouble.refusal or refusal
                    continue
                yield route.model, target, notes, request

    async def _first(self, target: Target, relay: Relay, *, streamed: bool) -> Batch:
        """Awaits the first batch, and tells `ChannelHealth` how that went."""
        self._health.begin(target)
        begun = self._clock.now()
        try:
            first = await anext(relay)
        except UpstreamError as error:
            self._health.failed(target, error)
            raise
        except BaseException:
            # Cancelled: nothing is known about the channel, but its trial must end.
            self._health.abandoned(target)
            raise
        # A whole answer begins when it ends: how long that takes is the answer's affair.
        self._health.succeeded(target, self._clock.now() - begun if streamed else None)
        return first


class _Trouble:
    """Why no candidate has answered so far."""

    def __init__(self) -> None:
        self.refusal: Failure | None = None
        """Why one could not be asked."""
        self._failure: UpstreamError | None = None
        self._failed: set[str] = set()

    def concerns(self, channel: ChannelConfig) -> bool:
        """Whether another key of the channel would do no better."""
        return channel.name in self._failed

    def failed(self, channel: ChannelConfig, error: UpstreamError) -> None:
        """A candidate was asked and failed."""
        if not error.row.key_fault:
            self._failed.add(channel.name)
        if self._failure is None or error.row.channel_fault:
            # That a channel lacks the model tells less than how another one failed.
            self._failure = error

    @property
    def worst(self) -> Failure:
        """What to tell the caller."""
        return self._failure or self.refusal or _no_candidate()


def _bearing(request: UpstreamRequest, headers: Mapping[str, str]) -> UpstreamRequest:
    """The same request, with these headers besides."""
    return (
        msgspec.structs.replace(request, headers={**request.headers, **headers})
        if headers
        else request
    )


def _too_late() -> Failure:
    return Failure(reasons.ERROR_REASON_DEADLINE, "The time for this request is over.")


def _no_candidate() -> UpstreamError:
    return UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNREACHABLE, "No channel answered.")
