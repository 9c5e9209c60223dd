"""Call record: facts about a completion, logged as one line and counted in metrics at its end.

    record = calls.begin(request_id, method)
    record.key_id = …                     # facts, as they become known
    record.start_attempt(target)
    calls.end(record, error, time_left_s) # the line is logged, and the metrics are updated

Nothing here happens per chunk. A record holds names, numbers and times: never a prompt,
an answer or a key, so that operators may see all that is made of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Protocol

import grpc
import msgspec

from services.clock import Clock
from services.common.json_logs import emit
from services.common.plain_metrics import PlainMetrics
from services.domain.error_reason import ErrorReason
from services.domain.events import ChoiceFinished, Event
from services.domain.usage import Usage
from services.errors import Failure, UpstreamError
from services.reason_table import REASONS, ROWS
from services.telemetry.call_facts import CallFacts
from services.telemetry.call_tracing import NO_HEADERS, TracedTarget
from services.telemetry.ended_calls import EndedCalls

if TYPE_CHECKING:
    from services.telemetry.call_spans import CallSpans, CallTracer

log = logging.getLogger(__name__)

REFUSED = "refused"
"""End of a call that failed before its answer began."""
INTERNAL = "internal"
CLIENT_GONE = "client_gone"
DEADLINE = "deadline"
REPLAYED = "replayed"
UNSPECIFIED = "unspecified"
SHUTDOWN = "shutdown"
ABORTED = REASONS[ErrorReason.CALL_ABORTED].end

FINISHES: Mapping[str, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""Ends of complete answers, by finish reason."""

_BREAKS = tuple(row.end for row in ROWS if row.end)
_OTHER_ENDS = (REFUSED, INTERNAL, CLIENT_GONE, DEADLINE, REPLAYED, SHUTDOWN, "upstream_error")

DEADLINE_MARGIN_S = 0.1
"""A cancellation with no more time left than this is the deadline's. A caller cancels its call at
its own deadline, which passes earlier than ours by the time that the request was on its way."""

_CUTS = frozenset({ErrorReason.DEADLINE, ErrorReason.SHUTTING_DOWN})
"""Interrupts that end a call as its transport does over gRPC: it is cancelled."""

ENDS = frozenset({UNSPECIFIED, *FINISHES.values(), *_BREAKS, *_OTHER_ENDS})
"""All values of `CallRecord.end`."""


class Attempt(msgspec.Struct, array_like=True, gc=False):
    """One request to a provider. As JSON it is an array of its fields."""

    channel: str
    """Name of the channel."""
    model: str
    """The provider's name of the model."""
    reason: str = ""
    """Reason of its failure in the contract. Empty: no failure."""
    offset_ms: int = 0
    """Time of its start, in milliseconds from the start of the call."""


class Interrupt(Protocol):
    """Ends a call in flight."""

    @property
    def failure(self) -> Callable[[], Failure] | None:
        """Makes the failure of the call. None: it was not interrupted."""

    def trigger(self, failure: Callable[[], Failure]) -> None:
        """End the call, which raises `failure()`."""


class CallRecord(msgspec.Struct, kw_only=True):
    """Facts about a call, complete when `CallLog` logs it.

    Times are the clock's `now()`, in seconds; 0 for what did not happen.
    """

    request_id: str
    """ID that the caller or the edge gave."""
    method: str
    """`create`, `stream` or `embed`."""
    opened_at: float
    """Time of arrival."""
    number: int = 0
    """Number of the call among those of the process."""
    key_id: str = ""
    """ID of the key. Empty: no known key."""
    account: str = ""
    """Account that pays."""
    model: str = ""
    """Public model, by the name of its price. Set once it is known to be in the catalog."""
    attempts: list[Attempt] = []
    """Requests to providers, in order."""
    channel: str = ""
    """Channel of the last attempt. Empty: there was no attempt."""
    dialect: str = ""
    """Dialect of the last attempt. Empty: there was no attempt."""
    begun_at: float = 0.0
    """Time when the answer began."""
    ended_at: float = 0.0
    """Time when the call ended."""
    hold_nano: int = 0
    """Amount of the hold, in nano-USD."""
    settlement: str = ""
    """End of the hold: `settled` or `voided`. Empty: there was no hold."""
    charge_nano: int = 0
    """Charge in nano-USD."""
    usage: Usage | None = None
    """Tokens used. None: no tokens."""
    flags: Sequence[str] = ()
    """Corrections of the provider's usage."""
    is_joined: bool = False
    """Whether the answer is that of an equal call in the same session."""
    finish: str = ""
    """Finish reason of the answer. Empty: it has none."""
    code: str = "OK"
    """Name of the gRPC status."""
    reason: str = ""
    """Reason of the failure in the contract. Empty: the call succeeded."""
    end: str = ""
    """One of `ENDS`."""
    spans: CallSpans | None = None
    """Spans of the call. None: calls are not traced."""
    facts: CallFacts = msgspec.field(default_factory=CallFacts)
    """Facts for the call log."""
    interrupt: Interrupt | None = None
    """Ends the call while it is in flight. None: it is not authenticated yet, or over."""
    tokens_so_far: Callable[[], int] | None = None
    """Returns the generated tokens so far, while the call is in flight and admitted."""
    is_aborted: bool = False
    """Whether an operator has aborted the call."""

    @property
    def replayed(self) -> bool:
        """Whether the answer is that of an earlier call: of its idempotency key, or joined."""
        return self.end == REPLAYED

    @property
    def token_gap_s(self) -> float | None:
        """Mean time between tokens of the answer. None: it has fewer than two."""
        tokens = self.usage.completion_token_count if self.usage else 0
        if not self.begun_at or tokens < 2:
            return None
        return (self.ended_at - self.begun_at) / (tokens - 1)

    def start_attempt(self, target: TracedTarget, at: float = 0.0) -> Mapping[str, str]:
        """Record a request to a provider. Returns the trace headers to send with it."""
        channel = target.channel
        self.channel, self.dialect = channel.name, channel.dialect
        offset_ms = round(1000 * (at - self.opened_at))
        self.attempts.append(Attempt(channel.name, target.model, "", offset_ms))
        return NO_HEADERS if self.spans is None else self.spans.start_attempt(target)

    def fail_attempt(self, error: UpstreamError) -> None:
        """Record that the latest request failed."""
        self.attempts[-1].reason = error.reason
        if self.spans is not None:
            self.spans.fail_attempt(error.reason)

    def finish_answer(self, events: Sequence[Event]) -> None:
        """Record the finish reason of the first choice. `events` are the last of the answer."""
        reason = ""
        for event in reversed(events[:-1]):
            if not isinstance(event, ChoiceFinished):
                break  # Choices finish after the last delta.
            reason = event.finish_reason
        self.finish = FINISHES.get(reason, UNSPECIFIED)

    def finish_with(self, reason: str) -> None:
        """Record the finish reason of the first choice."""
        self.finish = FINISHES.get(reason, UNSPECIFIED)

    def line(self) -> dict[str, object]:
        """Fields of the log event `call.ended`."""
        usage = self.usage or _NO_USAGE
        ttft_s = self.begun_at - self.opened_at
        return {
            "request_id": self.request_id,
            "key_id": self.key_id,
            "account": self.account,
            "model": self.model,
            "channel": self.channel,
            "dialect": self.dialect,
            "method": self.method,
            "code": self.code,
            "reason": self.reason,
            "end": self.end,
            "attempts": len(self.attempts),
            "replayed": self.replayed,
            "ttft_ms": round(ttft_s * 1000, 1) if self.begun_at else None,
            "duration_ms": round((self.ended_at - self.opened_at) * 1000, 1),
            "prompt_tokens": usage.prompt_token_count,
            "completion_tokens": usage.completion_token_count,
            "thinking_tokens": usage.thinking_token_count,
            "usage_flags": self.flags,
            "charge_nano_usd": self.charge_nano,
            "hold_nano_usd": self.hold_nano,
            "trace_id": self.spans.trace_id if self.spans else "",
        }


_NO_USAGE = Usage()


class CallLog:
    """Log of the calls of a process: each is logged at its end, and observed soon after it."""

    def __init__(self, clock: Clock, tracer: CallTracer | None = None) -> None:
        self.clock = clock
        """Times the calls."""
        self.observers: list[EndedCalls] = []
        """Get every complete record, as it is at the end of its call."""
        self.late_observers: list[Callable[[CallRecord], None]] = []
        """Get the record of each call whose cost became known after its end."""
        self._tracer = tracer
        self.live: dict[int, CallRecord] = {}
        """In-flight calls by their numbers, oldest first."""
        self._numbers = count(1)
        self.stopping = False
        """Whether the process shuts down: calls that are cancelled now end as `shutdown`."""

    def declare_metrics(self, counters: PlainMetrics) -> None:
        """Declare the metric of in-flight calls."""
        counters.observable_gauge("calls_in_flight", "In-flight calls.", lambda: len(self.live))

    def begin(
        self, request_id: str, method: str, metadata: Mapping[str, str] = NO_HEADERS
    ) -> CallRecord:
        """Return the record of a call that begins. `end` must follow.

        `metadata` is the caller's, which may hold a `traceparent`.
        """
        number = next(self._numbers)
        record = CallRecord(
            request_id=request_id, method=method, opened_at=self.clock.now(), number=number
        )
        if self._tracer is not None:
            record.spans = self._tracer.begin(method, metadata)
        self.live[number] = record
        return record

    def end(
        self,
        record: CallRecord,
        error: BaseException | None,
        time_left_s: Callable[[], float | None],
    ) -> None:
        """Complete the record of a call, which has raised `error`; None: it has answered.

        `time_left_s` returns the seconds until the call's deadline; None without one.
        """
        if error is None:
            record.end = record.finish or REPLAYED
        elif isinstance(error, asyncio.CancelledError | GeneratorExit) or _is_cut(record, error):
            self._record_cancellation(record, time_left_s())
        elif isinstance(error, Failure):
            _record_failure(record, error)
        else:
            record.reason, record.code, record.end = "INTERNAL", "INTERNAL", INTERNAL
        del self.live[record.number]
        record.ended_at = self.clock.now()
        record.tokens_so_far = None  # It refers to the request.
        record.interrupt = None
        if record.spans is not None:
            record.spans.ended(record)
        if log.isEnabledFor(logging.INFO):
            emit(log, "call.ended", record.line())
        # A call whose hold has not ended is read on, which changes its record.
        is_read_on = bool(record.facts.hold_id) and not record.settlement
        for observer in self.observers:
            observer.add(record, at_once=is_read_on)

    def _record_cancellation(self, record: CallRecord, time_left_s: float | None) -> None:
        """Record what cancelled the call: an interrupt, its caller, deadline or the shutdown."""
        interrupt = record.interrupt
        failure = interrupt.failure() if interrupt and interrupt.failure else None
        if record.finish:
            # The answer is complete: a caller who has its last message may cancel.
            record.end = record.finish
        elif failure is not None and failure.reason not in _CUTS:
            _record_failure(record, failure)
        elif time_left_s is not None and time_left_s <= DEADLINE_MARGIN_S:
            record.code, record.end = grpc.StatusCode.DEADLINE_EXCEEDED.name, DEADLINE
        else:
            record.code = grpc.StatusCode.CANCELLED.name
            record.end = SHUTDOWN if self.stopping else CLIENT_GONE


def _is_cut(record: CallRecord, error: BaseException) -> bool:
    """Return whether a call raises the failure of a cut, which has interrupted it."""
    is_interrupted = record.interrupt is not None and record.interrupt.failure is not None
    return is_interrupted and isinstance(error, Failure) and error.reason in _CUTS


def _record_failure(record: CallRecord, failure: Failure) -> None:
    record.reason, record.code = failure.reason, failure.code.name
    record.end = _end_of_failure(record, failure)


def _end_of_failure(record: CallRecord, failure: Failure) -> str:
    if not record.begun_at and failure.reason is not ErrorReason.CALL_ABORTED:
        return REFUSED
    if failure.row.end:
        return failure.row.end
    return "upstream_error" if isinstance(failure, UpstreamError) else INTERNAL
