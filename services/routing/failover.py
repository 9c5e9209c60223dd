"""Tries the candidates in turn until one begins to answer; after that, never again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.clock import Chance, Clock
from services.errors import Failure, UpstreamError
from services.providers.base import Decoder, Dialect, Notes, Target
from services.providers.upstream import Upstream
from services.routing.catalog import Route
from services.routing.choice import order
from services.routing.health import Health
from services.telemetry.calls import CallRecord

ATTEMPTS_MAX = 3
RETRY_SHARE = 0.2
"""Retries that may be made for every call."""
RETRIES_PER_S = 10.0
"""Retries that may be made besides, so that a quiet service may retry at all."""


@dataclass(slots=True)
class Answer:
    """An answer that has begun."""

    target: Target
    notes: Sequence[pb.Note]
    first: Sequence[pb.ChatCompletionChunk]
    """What came first. Not empty."""
    rest: AsyncIterator[Sequence[pb.ChatCompletionChunk]]
    """What comes after. Raises UpstreamError where the answer breaks off."""
    decoder: Decoder
    """Knows the usage that was reported so far."""
    attempts: int


class RetryBudget:
    """Bounds retries to a share of the calls, so that a sick provider meets no storm."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = RETRIES_PER_S
        self._at = clock.now()

    def earn(self) -> None:
        """A call was made."""
        self._tokens = min(self._tokens + RETRY_SHARE, 10 * RETRIES_PER_S)

    @property
    def left(self) -> float:
        """How many retries may be made at this moment."""
        grown = self._tokens + (self._clock.now() - self._at) * RETRIES_PER_S
        return max(self._tokens, min(grown, RETRIES_PER_S))

    def spend(self) -> bool:
        """Whether a retry may be made now; if so, it is counted."""
        self._tokens = self.left
        self._at = self._clock.now()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Failover:
    """Opens answers."""

    def __init__(
        self,
        upstream: Upstream,
        dialects: Mapping[str, Dialect],
        health: Health,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._upstream = upstream
        self._dialects = dialects
        self._health = health
        self._chance = chance
        self.budget = RetryBudget(clock)

    @asynccontextmanager
    async def open(
        self,
        spec: pb.ChatCompletionSpec,
        route: Route,
        record: CallRecord,
        *,
        strict: bool,
        stream: bool,
    ) -> AsyncIterator[Answer]:
        """An answer to `spec`; its connection is closed on the way out.

        `record` learns of every attempt.

        Raises Failure where no candidate can be asked, and UpstreamError where none
        answered: the caller's fault at once, a channel's when no attempt is left.
        """
        self.budget.earn()
        refusal: Failure | None = None
        failure: UpstreamError | None = None
        attempts = 0
        for target in order(route.targets, self._health.available, self._chance):
            notes = Notes(strict=strict)
            dialect = self._dialects[target.channel.dialect]
            try:
                request = dialect.encode(spec, target, notes, stream=stream)
            except Failure as error:
                # What this model cannot do, the same model may do at another channel.
                refusal = refusal or error
                continue
            if attempts == ATTEMPTS_MAX or (attempts and not self.budget.spend()):
                break
            attempts += 1
            record.tried(target.channel.name)
            decoder = dialect.decoder(target)
            relay = self._upstream.relay(request, target, dialect, decoder)
            async with aclosing(relay) as batches:
                try:
                    first = await self._first(target, batches)
                except UpstreamError as error:
                    record.attempt_failed(error)
                    if not error.retryable:
                        raise
                    failure = _more_telling(failure, error)
                    continue
                yield Answer(target, notes.all, first, batches, decoder, attempts)
                return
        raise failure or refusal or _no_candidate()

    async def _first(
        self, target: Target, batches: AsyncIterator[Sequence[pb.ChatCompletionChunk]]
    ) -> Sequence[pb.ChatCompletionChunk]:
        """Awaits the first batch, and tells `Health` how that went."""
        self._health.begin(target)
        try:
            first = await anext(batches)
        except UpstreamError as error:
            self._health.failed(target, error)
            raise
        except BaseException:
            # Cancelled: nothing is known about the channel, but its trial must end.
            self._health.abandoned(target)
            raise
        self._health.succeeded(target)
        return first


def _no_candidate() -> UpstreamError:
    return UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNREACHABLE, "No channel answered.")


def _more_telling(before: UpstreamError | None, error: UpstreamError) -> UpstreamError:
    """Of several failures the last, unless it only says that the channel lacks the model."""
    if before is not None and error.reason == reasons.ERROR_REASON_MODEL_NOT_FOUND:
        return before
    return error
