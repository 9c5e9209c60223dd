"""Failover: try targets in turn until one begins to answer. After that there is no failover."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import msgspec

from services.clock import Chance, Clock
from services.config import ChannelConfig
from services.domain.completion import WholeAnswer
from services.domain.error_reason import ErrorReason
from services.domain.events import Batch, Note
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure, UpstreamError
from services.providers.base import Decoder, Dialect, Notes, Target, UpstreamRequest
from services.providers.upstream import Relay, Upstream
from services.routing.budget import RetryBudget
from services.routing.catalog import ModelRoute
from services.routing.choice import order_targets
from services.routing.health import ChannelHealth
from services.telemetry.calls import CallRecord

ATTEMPTS_MAX = 3
"""The most requests to providers that one call may cause."""


class StartedAnswer(msgspec.Struct, frozen=True):
    """An answer that has begun. Close it, however it ends."""

    model: str
    """The public name of the answering model."""
    target: Target
    """The target that answers."""
    notes: list[Note]
    """Changes that were made to the request."""
    first: Batch | WholeAnswer
    """The first batch, or the whole answer, where the provider sent a document."""
    rest: Relay
    """The batches after the first. Raises UpstreamError where the answer breaks off."""
    decoder: Decoder
    """Has the usage that the provider has reported so far."""

    thinking_tokens: int
    """Plausible reasoning of a choice that the answer does not show, in tokens."""

    def close(self) -> None:
        """Cancel the request to the provider, unless the answer is complete. Never waits."""
        self.rest.close()


class RouteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request, and the routes that may answer it."""

    spec: ChatCompletionSpec
    """The request."""
    routes: Sequence[ModelRoute]
    """The requested model, then its fallbacks."""
    take_channel_limits: Callable[[str], Awaitable[None]]
    """Takes from the limits of the channel of that name; raises Failure where they are used up."""
    record: CallRecord
    """Records every attempt."""
    on_abandoned: Callable[[Target, Decoder, int], None]
    """Called where the call is cancelled between a request's leaving for a provider and the begin
    of its answer, with the plausible reasoning of a choice in tokens."""
    time_left_s: Callable[[], float | None] = lambda: None
    """Returns the seconds until the caller's deadline; None: there is no deadline."""
    limits_output: bool = False
    """Whether every request needs an output limit, since the caller's money is limited."""
    strict: bool = False
    """Whether to refuse a target that cannot honour a parameter."""
    stream: bool = True
    """Whether the caller wants a stream."""


class Failover:
    """Tries targets until one begins to answer."""

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

    async def open(self, wanted: RouteRequest) -> StartedAnswer:
        """Return the first answer that begins. The caller must close it.

        Raises Failure if no target can be tried, and UpstreamError if none answers. An error that
        is not retryable is raised at once, any other one when no attempt is left.
        """
        self.budget.earn()
        failures = _Failures()
        attempts = 0
        for model, target, notes, request in self._candidates(wanted, failures):
            if failures.excludes(target.channel):
                continue
            if attempts == ATTEMPTS_MAX or (attempts and not self.budget.spend()):
                break
            left_s = wanted.time_left_s()
            if left_s is not None and left_s <= (self._health.latency_s(target) if attempts else 0):
                # The attempt cannot finish in time, but the provider would bill it.
                raise failures.to_raise if attempts else _deadline_passed()
            try:
                await wanted.take_channel_limits(target.channel.name)
            except Failure as limit_exceeded:
                failures.refusal = limit_exceeded
                continue
            attempts += 1
            headers = wanted.record.start_attempt(target)
            dialect = self._dialects[target.channel.dialect]
            decoder = dialect.decoder(_shown(target, wanted.spec))
            relay = self._upstream.relay(_with_headers(request, headers), target, dialect, decoder)
            try:
                first = await self._first_batch(target, relay, streamed=request.streamed)
            except (asyncio.CancelledError, GeneratorExit):
                if relay.is_sent:
                    wanted.on_abandoned(target, decoder, request.thinking_tokens)
                raise
            except UpstreamError as error:
                wanted.record.fail_attempt(error)
                if not error.row.retryable:
                    raise
                failures.add(target.channel, error)
                continue
            return StartedAnswer(
                model, target, notes.all, first, relay, decoder, request.thinking_tokens
            )
        raise failures.to_raise

    def broke_off(self, answer: StartedAnswer, record: CallRecord, error: UpstreamError) -> None:
        """Record that an answer failed after it had begun. No other target is tried."""
        record.fail_attempt(error)
        self._health.answer_broke_off(answer.target, error)

    def _candidates(
        self, wanted: RouteRequest, failures: _Failures
    ) -> Iterator[tuple[str, Target, Notes, UpstreamRequest]]:
        """The targets in the order in which they are tried, each with its encoded request."""
        requested = wanted.routes[0]
        for route in wanted.routes:
            for target in order_targets(route.targets, self._health, self._chance):
                notes = Notes(strict=wanted.strict)
                if route is not requested:
                    notes.replaced("model", f"`{route.model}` answers in its place.")
                dialect = self._dialects[target.channel.dialect]
                try:
                    request = dialect.encode(
                        wanted.spec, _limited(target, wanted), notes, stream=wanted.stream
                    )
                except Failure as refusal:
                    # Another channel may support what this one does not, for the same model.
                    failures.refusal = failures.refusal or refusal
                    continue
                yield route.model, target, notes, request

    async def _first_batch(
        self, target: Target, relay: Relay, *, streamed: bool
    ) -> Batch | WholeAnswer:
        """Await the first batch, and note in `ChannelHealth` how the attempt ended."""
        self._health.attempt_started(target)
        started_at = self._clock.now()
        try:
            first = await relay.first()
        except UpstreamError as error:
            self._health.attempt_failed(target, error)
            raise
        except BaseException:
            # Cancelled: it says nothing about the channel, but a probe of its breaker must end.
            self._health.attempt_abandoned(target)
            raise
        # A whole answer begins when it ends: its time depends on its length, not on the target.
        latency_s = self._clock.now() - started_at if streamed else None
        self._health.attempt_succeeded(target, latency_s)
        return first


class _Failures:
    """The failures of a call's attempts so far."""

    def __init__(self) -> None:
        self.refusal: Failure | None = None
        """Why a target could not be tried."""
        self._error: UpstreamError | None = None
        self._failed_channels: set[str] = set()

    def excludes(self, channel: ChannelConfig) -> bool:
        """Whether the channel failed in a way that would also fail its other keys."""
        return channel.name in self._failed_channels

    def add(self, channel: ChannelConfig, error: UpstreamError) -> None:
        """Record a failed attempt."""
        if not error.row.key_fault:
            self._failed_channels.add(channel.name)
        if self._error is None or error.row.channel_fault:
            # A channel fault tells the caller more than, say, that a channel lacks the model.
            self._error = error

    @property
    def to_raise(self) -> Failure:
        """The failure that the caller gets."""
        return self._error or self.refusal or _no_candidate()


def _limited(target: Target, wanted: RouteRequest) -> Target:
    if not wanted.limits_output or wanted.spec.max_tokens is not None:
        return target
    return replace(target, limits_output=True)


def _shown(target: Target, spec: ChatCompletionSpec) -> Target:
    """Return the target of a decoder, which is told what the answer is to have."""
    if spec.thinking is None or not spec.thinking.reasoning_details:
        return target
    return replace(target, reasoning_details=True)


def _with_headers(request: UpstreamRequest, headers: Mapping[str, str]) -> UpstreamRequest:
    if not headers:
        return request
    return msgspec.structs.replace(request, headers={**request.headers, **headers})


def _deadline_passed() -> Failure:
    return Failure(ErrorReason.DEADLINE, "The time for this request is over.")


def _no_candidate() -> UpstreamError:
    return UpstreamError(ErrorReason.UPSTREAM_UNREACHABLE, "No channel answered.")
