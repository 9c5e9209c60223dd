"""Attempts of one call: its targets are tried in turn until one begins to answer.

A whole answer is mostly requested as one document, which costs a fraction of the CPU time of a
stream. A provider that hangs cannot be told from one whose answer is long then. So such an answer,
too, has to begin within the channel's timeout of a first event; where it does not, the next
targets are asked for a stream, and at last the late one again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from services.clock import Chance
from services.domain.error_reason import ErrorReason
from services.errors import Failure, UpstreamError, deadline_passed
from services.providers.base import Decoder, Dialect, ModelRoute, Notes, Target, UpstreamRequest
from services.providers.unusable_answers import OverlongAnswerError
from services.providers.upstream import Upstream
from services.routing.affinity import SessionAffinity, SessionPin
from services.routing.budget import RetryBudget
from services.routing.call_failures import CallFailures, channel_disabled
from services.routing.choice import order_routes
from services.routing.health import ChannelHealth
from services.routing.request_form import AttemptCharges, RequestForm, StartedAnswer
from services.telemetry.calls import CallRecord

ATTEMPTS_MAX = 3
"""The most requests to providers that one call may cause."""
DEADLINE_SHARE = 0.5
"""The share of the time until the caller's deadline in which an answer has to begin, while another
channel could be asked."""


class _Step(msgspec.Struct, frozen=True):
    """A target to try."""

    route: ModelRoute
    target: Target
    streamed: bool
    """Whether to request a stream."""


class Failover:
    """Tries targets until one begins to answer. After that a stream has no failover."""

    def __init__(
        self,
        upstream: Upstream,
        dialects: Mapping[str, Dialect],
        health: ChannelHealth,
        chance: Chance,
        sessions: SessionAffinity,
    ) -> None:
        self.upstream = upstream
        """Sends requests."""
        self.dialects = dialects
        """Dialects of completions, by name."""
        self.health = health
        """Health of all targets."""
        self.chance = chance
        """Draws targets by weight."""
        self.sessions = sessions
        """The sessions of all callers."""
        self.budget = RetryBudget(health.clock)
        """Budget of retries of all calls."""


class CallAttempts(msgspec.Struct, kw_only=True, eq=False):
    """The attempts of one call at the routes that may answer it."""

    failover: Failover
    """Shared by all calls."""
    form: RequestForm
    """The request."""
    routes: Sequence[ModelRoute]
    """The requested model, then its fallbacks."""
    charges: AttemptCharges
    """Takes from limits for the attempts, and charges those that do not answer."""
    record: CallRecord
    """Records every attempt."""
    time_left_s: Callable[[], float | None] = lambda: None
    """Returns the seconds until the caller's deadline; None: there is no deadline."""
    session: SessionPin | None = None
    """Session of the call. None: chance chooses among the targets of a tier."""
    strict: bool = False
    """Whether to refuse a target that cannot honour a parameter."""
    stream: bool = True
    """Whether the caller wants a stream."""
    has_choice: bool = True
    """Whether there may be several targets."""
    limits_channels: bool = True
    """Whether a channel may have limits."""
    # No generator that knows this object: it would keep the request until the next collection.
    _left: Iterator[tuple[ModelRoute, Target]] | None = None
    _failures: CallFailures = msgspec.field(default_factory=CallFailures)
    _late: Sequence[_Step] = ()
    _instead: _Step | None = None
    _made: int = 0

    async def open(self) -> StartedAnswer:
        """Return the next answer that begins. The caller must close its `rest`.

        Raises Failure if no target can be tried, and UpstreamError if none answers. An error that
        is not retryable is raised at once, any other one when no attempt is left.
        """
        failures = self._failures
        while step := self._next_step():
            target, notes = step.target, Notes(strict=self.strict)
            if step.route is not self.routes[0]:
                notes.replaced("model", f"`{step.route.model}` answers in its place.")
            if target.replaces_responses:
                notes.mapped("model", "Chat completions answer: the provider has no Responses.")
            try:
                request, decoder = await self.form.encoded(target, notes, stream=step.streamed)
            except Failure as refusal:
                # Another channel may support what this one does not, for the same model.
                failures.refusal = failures.refusal or refusal
                continue
            if not self._may_try(target):
                break
            if self.limits_channels:
                try:
                    await self.charges.take_channel_limits(target.channel.name)
                except Failure as limit_exceeded:
                    failures.refusal = limit_exceeded
                    continue
            self._made += 1
            answer = await self._try(step, request, decoder, notes)
            if answer is not None:
                if self.session is not None:
                    self.session.answered(target)
                return answer
            self._note_if_late(step, request)
        raise failures.take()

    def broke_off(self, answer: StartedAnswer, error: UpstreamError) -> None:
        """Record that an answer failed after it had begun."""
        self.record.fail_attempt(error)
        self.failover.health.answer_broke_off(answer.target, error)
        if isinstance(error, OverlongAnswerError):
            self.charges.charge_overlong(answer.target, answer.decoder, answer.thinking_tokens)

    def goes_on_after(self, answer: StartedAnswer, error: UpstreamError) -> bool:
        """Record that an answer broke off of which the caller has received nothing.

        Returns whether another target may be tried.
        """
        self.broke_off(answer, error)
        if isinstance(error, OverlongAnswerError) or not error.row.retryable:
            return False
        self._failures.add(answer.target.channel, error)
        return True

    def _may_try(self, target: Target) -> bool:
        """Whether another attempt may be made. Raises the failure if the deadline is too near."""
        made, failover = self._made, self.failover
        if made and (made == ATTEMPTS_MAX or not failover.budget.spend()):
            return False
        left_s = self.time_left_s()
        if left_s is not None and left_s <= (failover.health.latency_s(target) if made else 0):
            # The attempt cannot finish in time, but the provider would bill it.
            raise self._failures.take() if made else deadline_passed()
        return True

    async def _try(
        self, step: _Step, request: UpstreamRequest, decoder: Decoder, notes: Notes
    ) -> StartedAnswer | None:
        """Ask one target. None: it failed, and another one may be asked."""
        target, health = step.target, self.failover.health
        channel, charges, started_at = target.channel, self.charges, health.clock.now()
        if headers := self.record.start_attempt(target, started_at):
            request = msgspec.structs.replace(request, headers={**request.headers, **headers})
        api = self.form.dialects[channel.dialect]
        timeout_s = channel.first_token_timeout_s if request.may_stream else channel.total_timeout_s
        first_s = self._share_of_deadline_s(target, timeout_s) if self.has_choice else timeout_s
        answer = self.failover.upstream.answer(request, target, api, decoder, first_s)
        if health.unwell:
            health.attempt_started(target)
        try:
            first = await answer.first()
        except UpstreamError as error:
            if answer.is_late and error.reason is ErrorReason.UPSTREAM_TIMEOUT:
                is_cut = first_s < timeout_s
                (charges.cut_attempt if is_cut else charges.miss_answer)(target, decoder)
            if isinstance(error, OverlongAnswerError):
                charges.charge_overlong(target, decoder, request.thinking_tokens)
            if not self._goes_on(step, error):
                raise
            return None
        except BaseException as error:
            # It says nothing about the channel, but a probe of its breaker must end.
            health.attempt_abandoned(target)
            if answer.is_sent:
                is_left = isinstance(error, asyncio.CancelledError | GeneratorExit)
                # Otherwise the gateway cannot read the answer, which the provider bills.
                charge = charges.abandon if is_left else charges.leave_unread
                charge(target, decoder, request.thinking_tokens)
            raise
        # A whole answer begins when it ends: its time depends on its length, not on the target.
        health.attempt_succeeded(
            target, health.clock.now() - started_at if request.streamed else None
        )
        tokens = request.thinking_tokens
        return StartedAnswer(step.route.model, target, notes.all, first, answer, decoder, tokens)

    def _goes_on(self, step: _Step, error: UpstreamError) -> bool:
        """Record a failure before an answer. Returns whether another target may be asked."""
        target = step.target
        self.failover.health.attempt_failed(target, error)
        self.record.fail_attempt(error)
        if isinstance(error, OverlongAnswerError):
            return False
        if error.lacks_api and target.over_chat is not None:
            self.failover.health.responses_are_missing(target)
            self._instead = _Step(step.route, target.over_chat, self.stream)
        elif not error.row.retryable:
            return False
        self._failures.add(target.channel, error)
        return True

    def _share_of_deadline_s(self, target: Target, timeout_s: float) -> float:
        """`timeout_s`, or the part of the caller's time that lets another channel be asked."""
        if self._made == ATTEMPTS_MAX:
            return timeout_s
        left_s = self.time_left_s()
        if left_s is None or left_s * DEADLINE_SHARE >= timeout_s:
            return timeout_s
        others = (
            other.channel
            for route in self.routes
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
        if self._instead is not None:
            step, self._instead = self._instead, None
            return step
        health, failures = self.failover.health, self._failures
        if self._left is None:
            self.failover.budget.calls += 1
            self._left = self._ordered(health)
        for route, target in self._left:
            name = target.channel.name
            if name in health.disabled:
                failures.refusal = failures.refusal or channel_disabled()
            elif name not in failures.failed_channels:
                return _Step(route, target, self.stream or self._needs_stream(target))
        return self._next_late()

    def _ordered(self, health: ChannelHealth) -> Iterator[tuple[ModelRoute, Target]]:
        """Return the targets of all routes in the order in which they are tried."""
        if self.has_choice:
            return order_routes(self.routes, health, self.failover.chance, self.session)
        return iter([(self.routes[0], self.routes[0].targets[0])])

    def _next_late(self) -> _Step | None:
        if not self._late:
            return None
        step, *self._late = self._late
        return step

    def _needs_stream(self, target: Target) -> bool:
        """Whether a whole answer is requested as a stream, which begins early."""
        health = self.failover.health
        if self._late or (health.late_targets and health.prefers_stream(target)):
            return True
        if not self.has_choice:
            return False
        timeout_s = target.channel.first_token_timeout_s
        return self._share_of_deadline_s(target, timeout_s) < timeout_s

    def _note_if_late(self, step: _Step, request: UpstreamRequest) -> None:
        """Remember a whole answer that was late, and could be a stream."""
        is_whole = not request.streamed and request.may_stream
        if is_whole and step.target.channel.name in self._failures.late_channels:
            self._late = (*self._late, _Step(step.route, step.target, streamed=True))
            self.failover.health.whole_answer_was_late(step.target)


def cut_attempts_max(timeouts_s: Sequence[float], left_s: float | None) -> int:
    """Return how many attempts a deadline may cut short for the sake of other channels.

    `timeouts_s` are the channels' timeouts of a first event, longest first. The attempts before a
    cut one may have taken such a timeout each.
    """
    if left_s is None or len(timeouts_s) == 1:
        return 0
    longest_s, others = timeouts_s[0], min(ATTEMPTS_MAX, len(timeouts_s)) - 1
    if left_s >= longest_s * (others - 1 + 1 / DEADLINE_SHARE):
        return 0
    return sum((left_s - late * longest_s) * DEADLINE_SHARE < longest_s for late in range(others))
