"""Attempts of one call: its targets are tried in turn until one begins to answer.

A whole answer is mostly requested as one document, which costs a fraction of the CPU time of a
stream. A provider that hangs cannot be told from one whose answer is long then. So such an answer,
too, has to begin within the channel's timeout of a first event; where it does not, the next
targets are asked for a stream, and at last the late one again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from services.clock import Chance, Clock
from services.domain.error_reason import ErrorReason
from services.errors import Failure, UpstreamError, deadline_passed
from services.providers.base import ModelRoute, Notes, Target, UpstreamRequest
from services.providers.unusable_answers import OverlongAnswerError
from services.providers.upstream import Upstream
from services.routing.budget import RetryBudget
from services.routing.call_failures import CallFailures, channel_disabled
from services.routing.choice import order_targets
from services.routing.health import ChannelHealth
from services.routing.route_request import RouteRequest, StartedAnswer

ATTEMPTS_MAX = 3
"""The most requests to providers that one call may cause."""
DEADLINE_SHARE = 0.5
"""The share of the time until the caller's deadline in which an answer has to begin, while another
channel could be asked."""


class RoutingParts(msgspec.Struct, frozen=True, kw_only=True):
    """Parts that the attempts of all calls share."""

    upstream: Upstream
    """Sends requests."""
    health: ChannelHealth
    """Health of the targets."""
    clock: Clock
    """Measures latencies."""
    chance: Chance
    """Draws targets by weight."""
    budget: RetryBudget
    """Budget of retries of all calls."""


class _Step(NamedTuple):
    """A target to try."""

    route: ModelRoute
    target: Target
    streamed: bool
    """Whether to request a stream."""


class CallAttempts:
    """The attempts of one call."""

    __slots__ = (
        "_failures",
        "_has_choice",
        "_instead",
        "_late",
        "_made",
        "_parts",
        "_route",
        "_routes_left",
        "_targets_left",
        "_wanted",
    )

    def __init__(self, parts: RoutingParts, wanted: RouteRequest) -> None:
        self._parts = parts
        self._wanted = wanted
        self._failures = CallFailures()
        self._late: list[_Step] = []
        self._instead: _Step | None = None
        self._made = 0
        routes = wanted.routes
        self._has_choice = len(routes) > 1 or len(routes[0].targets) > 1
        # No generator: one that knew this object would keep the request until the next collection.
        self._routes_left = iter(routes[1:])
        self._begin_route(routes[0])

    async def open(self) -> StartedAnswer:
        """Return the next answer that begins. The caller must close it.

        Raises Failure if no target can be tried, and UpstreamError if none answers. An error that
        is not retryable is raised at once, any other one when no attempt is left.
        """
        wanted, failures = self._wanted, self._failures
        while step := self._next_step():
            notes = Notes(strict=wanted.strict)
            request = await self._encoded(step, notes)
            if request is None:
                continue
            if not self._may_try(step.target):
                break
            if wanted.take_channel_limits is not None:
                try:
                    await wanted.take_channel_limits(step.target.channel.name)
                except Failure as limit_exceeded:
                    failures.refusal = limit_exceeded
                    continue
            self._made += 1
            answer = await self._try(step, request, notes)
            if answer is not None:
                if wanted.session is not None:
                    wanted.session.answered(answer.target)
                return answer
            if not request.streamed and request.may_stream:
                self._note_if_late(step)
        raise failures.to_raise

    def broke_off(self, answer: StartedAnswer, error: UpstreamError) -> None:
        """Record that an answer failed after it had begun.

        Another target may be tried only where the caller has received nothing. Raises the error
        where it is not retryable.
        """
        wanted = self._wanted
        wanted.record.fail_attempt(error)
        self._parts.health.answer_broke_off(answer.target, error)
        is_overlong = isinstance(error, OverlongAnswerError)
        if is_overlong:
            wanted.on_overlong(answer.target, answer.decoder, answer.thinking_tokens)
        if is_overlong or not error.row.retryable:
            raise error
        self._failures.add(answer.target.channel, error)

    def _may_try(self, target: Target) -> bool:
        """Whether another attempt may be made. Raises the failure if the deadline is too near."""
        made, parts = self._made, self._parts
        if made == ATTEMPTS_MAX or (made and not parts.budget.spend()):
            return False
        left_s = self._wanted.time_left_s()
        if left_s is not None and left_s <= (parts.health.latency_s(target) if made else 0):
            # The attempt cannot finish in time, but the provider would bill it.
            raise self._failures.to_raise if made else deadline_passed()
        return True

    async def _try(
        self, step: _Step, request: UpstreamRequest, notes: Notes
    ) -> StartedAnswer | None:
        """Ask one target. None: it failed, and another one may be asked."""
        parts, wanted, target = self._parts, self._wanted, step.target
        channel, health, started_at = target.channel, parts.health, parts.clock.now()
        if headers := wanted.record.start_attempt(target, started_at):
            request = msgspec.structs.replace(request, headers={**request.headers, **headers})
        api, decoder = wanted.form.dialects[channel.dialect], wanted.form.decoder(target)
        timeout_s = channel.first_token_timeout_s if request.may_stream else channel.total_timeout_s
        first_s = self._share_of_deadline_s(target, timeout_s) if self._has_choice else timeout_s
        answer = parts.upstream.answer(request, target, api, decoder, first_s)
        health.attempt_started(target)
        try:
            first = await answer.first()
        except UpstreamError as error:
            if answer.is_late and error.reason is ErrorReason.UPSTREAM_TIMEOUT:
                (wanted.on_cut if first_s < timeout_s else wanted.on_late)(target, decoder)
            if isinstance(error, OverlongAnswerError):
                wanted.on_overlong(target, decoder, request.thinking_tokens)
            if not self._goes_on(target, error):
                raise
            return None
        except BaseException as error:
            # It says nothing about the channel, but a probe of its breaker must end.
            health.attempt_abandoned(target)
            if answer.is_sent:
                is_left = isinstance(error, asyncio.CancelledError | GeneratorExit)
                # Otherwise the gateway cannot read the answer, which the provider bills.
                note = wanted.on_abandoned if is_left else wanted.on_unread
                note(target, decoder, request.thinking_tokens)
            raise
        # A whole answer begins when it ends: its time depends on its length, not on the target.
        latency_s = parts.clock.now() - started_at if request.streamed else None
        health.attempt_succeeded(target, latency_s)
        model, tokens = step.route.model, request.thinking_tokens
        return StartedAnswer(model, target, notes.all, first, answer, decoder, tokens)

    def _goes_on(self, target: Target, error: UpstreamError) -> bool:
        """Record a failure before an answer. Returns whether another target may be asked."""
        self._parts.health.attempt_failed(target, error)
        self._wanted.record.fail_attempt(error)
        if isinstance(error, OverlongAnswerError):
            return False
        if error.lacks_api and target.over_chat is not None:
            self._parts.health.responses_are_missing(target)
            self._instead = _Step(self._route, target.over_chat, self._wanted.stream)
        elif not error.row.retryable:
            return False
        self._failures.add(target.channel, error)
        return True

    def _share_of_deadline_s(self, target: Target, timeout_s: float) -> float:
        """`timeout_s`, or the part of the caller's time that lets another channel be asked."""
        if self._made == ATTEMPTS_MAX:
            return timeout_s
        left_s = self._wanted.time_left_s()
        if left_s is None or left_s * DEADLINE_SHARE >= timeout_s:
            return timeout_s
        others = (
            other.channel
            for route in self._wanted.routes
            for other in route.targets
            if other.channel.name != target.channel.name
        )
        if all(channel.name in self._failures.failed_channels for channel in others):
            return timeout_s
        return left_s * DEADLINE_SHARE

    def _next_step(self) -> _Step | None:
        """The next target in the order in which they are tried. None: there is no other one.

        A target whose whole answer was late comes once more, to be asked for a stream.
        """
        failures, disabled = self._failures, self._parts.health.disabled
        if self._instead is not None:
            step, self._instead = self._instead, None
            return step
        while True:
            for target in self._targets_left:
                name = target.channel.name
                if name in disabled:
                    failures.refusal = failures.refusal or channel_disabled()
                elif name not in failures.failed_channels:
                    streamed = self._wanted.stream or self._needs_stream(target)
                    return _Step(self._route, target, streamed)
            route = next(self._routes_left, None)
            if route is None:
                return self._late.pop(0) if self._late else None
            self._begin_route(route)

    def _begin_route(self, route: ModelRoute) -> None:
        parts, targets = self._parts, route.targets
        if len(targets) > 1:
            targets = order_targets(targets, parts.health, parts.chance, self._wanted.session)
        self._route, self._targets_left = route, iter(targets)

    def _needs_stream(self, target: Target) -> bool:
        """Whether a whole answer is requested as a stream, which begins early."""
        timeout_s = target.channel.first_token_timeout_s
        return (
            bool(self._late)
            or self._parts.health.prefers_stream(target)
            or (self._has_choice and self._share_of_deadline_s(target, timeout_s) < timeout_s)
        )

    async def _encoded(self, step: _Step, notes: Notes) -> UpstreamRequest | None:
        """The request in the form of the target. None: it has no form for it."""
        wanted, target = self._wanted, step.target
        if step.route is not wanted.routes[0]:
            notes.replaced("model", f"`{step.route.model}` answers in its place.")
        if target.replaces_responses:
            notes.mapped("model", "Chat completions answer: the provider has no Responses.")
        try:
            return await wanted.form.encoded(target, notes, stream=step.streamed)
        except Failure as refusal:
            # Another channel may support what this one does not, for the same model.
            self._failures.refusal = self._failures.refusal or refusal
            return None

    def _note_if_late(self, step: _Step) -> None:
        """Remember a whole answer that was late, and could be a stream."""
        if step.target.channel.name in self._failures.late_channels:
            self._late.append(step._replace(streamed=True))
            self._parts.health.whole_answer_was_late(step.target)


def cut_attempts_max(timeouts_s: Sequence[float], left_s: float | None) -> int:
    """Return how many attempts a deadline may cut short for the sake of other channels.

    `timeouts_s` are the channels' timeouts of a first event, longest first. The attempts before a
    cut one may have taken such a timeout each.
    """
    if left_s is None or len(timeouts_s) == 1:
        return 0
    longest_s, others = timeouts_s[0], min(ATTEMPTS_MAX, len(timeouts_s)) - 1
    return sum((left_s - late * longest_s) * DEADLINE_SHARE < longest_s for late in range(others))
