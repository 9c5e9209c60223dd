"""What is told of a call when it is over: one line of the log, and the metrics.

    with calls.recording(request_id, method) as record:
        record.caller(…)                  # what becomes known on the way, once each
        record.tried(target)
    # the line is written, and the metrics have moved

Nothing here happens per chunk. A record holds names, numbers and times: never a prompt,
an answer or a key, so that whatever is made from it may be shown to operators.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1.usage_pb2 import Usage

from services.clock import Clock
from services.common.counters import Counters
from services.common.json_logs import emit
from services.errors import ROWS, Failure, UpstreamError
from services.telemetry.tracing import NO_HEADERS, CallTrace, Place, Tracing

log = logging.getLogger(__name__)

REFUSED = "refused"
"""The end of a call that failed before any answer began."""
INTERNAL = "internal"
CLIENT_GONE = "client_gone"
DEADLINE = "deadline"
REPLAYED = "replayed"
UNSPECIFIED = "unspecified"
SHUTDOWN = "shutdown"

FINISHES: Mapping[pb.FinishReason.ValueType, str] = {
    pb.FINISH_REASON_UNSPECIFIED: UNSPECIFIED,
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_TOOL_CALLS: "tool_calls",
    pb.FINISH_REASON_FUNCTION_CALL: "tool_calls",
    pb.FINISH_REASON_CONTENT_FILTER: "content_filter",
}
"""How an answer ended that came to its end."""

_BREAKS = tuple(row.end for row in ROWS if row.end)
_OTHER_ENDS = (REFUSED, INTERNAL, CLIENT_GONE, DEADLINE, REPLAYED, SHUTDOWN, "upstream_error")

ENDS = frozenset({*FINISHES.values(), *_BREAKS, *_OTHER_ENDS})
"""All that `end` can be."""


@dataclass(slots=True)
class Attempt:
    """One request to a provider."""

    channel: str
    """Whom it went to."""
    reason: str = ""
    """Why it failed, as the contract names it. Empty: it did not."""


@dataclass(slots=True, kw_only=True)
class CallRecord:
    """What is known of a call. Filled on the way; complete when `CallLog` tells of it.

    Times are the clock's `now()`, in seconds; 0 where it did not come to that.
    """

    request_id: str
    """As the caller or the edge gave it."""
    method: str
    """`create` or `stream`."""
    opened_at: float
    """When the call came in."""
    key_id: str = ""
    """Which key, by its ID. Empty: none that is known."""
    account: str = ""
    """Who pays."""
    model: str = ""
    """The public model, as prices go by. Set only once it is known to be one of ours."""
    attempts: list[Attempt] = field(default_factory=list)
    """What was sent to providers, in order."""
    begun_at: float = 0.0
    """When the answer began."""
    ended_at: float = 0.0
    """When the call was over."""
    hold_nano: int = 0
    """What was held for it."""
    settlement: str = ""
    """What became of the hold: `settled` or `voided`. Empty: there was none."""
    charge_nano: int = 0
    """What it cost."""
    usage: Usage | None = None
    """What it took. None: nothing."""
    flags: Sequence[str] = ()
    """What of the provider's usage was not believed."""
    finish: str = ""
    """How the answer says that it ended. Empty: it did not come to that."""
    code: str = "OK"
    """The gRPC status, by name."""
    reason: str = ""
    """Why the call failed, as the contract names it. Empty: it did not."""
    end: str = ""
    """One of `ENDS`."""
    trace: CallTrace | None = None
    """Its spans. None: nobody traces calls."""

    @property
    def channel(self) -> str:
        """Who answered, or was asked last. Empty: nobody."""
        return self.attempts[-1].channel if self.attempts else ""

    @property
    def replayed(self) -> bool:
        """Whether the answer had been given before: nobody was asked, and nothing failed."""
        return self.end == REPLAYED

    @property
    def ttft_s(self) -> float | None:
        """How long the answer took to begin. None: it did not."""
        return self.begun_at - self.opened_at if self.begun_at else None

    @property
    def token_gap_s(self) -> float | None:
        """The mean time between two tokens of the answer. None: there were not two."""
        tokens = self.usage.completion_token_count if self.usage else 0
        if not self.begun_at or tokens < 2:
            return None
        return (self.ended_at - self.begun_at) / (tokens - 1)

    def tried(self, place: Place) -> Mapping[str, str]:
        """A request goes to a provider. Gives the headers that it shall bear besides."""
        self.attempts.append(Attempt(place.channel.name))
        return NO_HEADERS if self.trace is None else self.trace.tried(place)

    def attempt_failed(self, error: UpstreamError) -> None:
        """The latest request failed."""
        self.attempts[-1].reason = error.reason_name
        if self.trace is not None:
            self.trace.failed(error.reason_name)

    def finished(self, chunks: Sequence[pb.ChatCompletionChunk]) -> None:
        """`chunks` are the end of the answer: how its first choice ended counts."""
        self.finish = UNSPECIFIED
        for chunk in reversed(chunks):
            event = chunk.WhichOneof("event")
            if event == "delta":
                return  # All choices end after the last of these.
            if event == "choice_finished":
                self.finish = FINISHES.get(chunk.choice_finished.finish_reason, UNSPECIFIED)

    def line(self) -> dict[str, object]:
        """What the log says of the call."""
        usage = self.usage or _NOTHING
        ttft_s = self.ttft_s
        return {
            "request_id": self.request_id,
            "key_id": self.key_id,
            "account": self.account,
            "model": self.model,
            "channel": self.channel,
            "method": self.method,
            "code": self.code,
            "reason": self.reason,
            "end": self.end,
            "attempts": len(self.attempts),
            "replayed": self.replayed,
            "ttft_ms": None if ttft_s is None else round(ttft_s * 1000, 1),
            "dur_ms": round((self.ended_at - self.opened_at) * 1000, 1),
            "tokens_in": usage.prompt_token_count,
            "tokens_out": usage.completion_token_count,
            "tokens_thinking": usage.thinking_token_count,
            "usage_flags": self.flags,
            "charge_nano": self.charge_nano,
            "hold_nano": self.hold_nano,
            "trace_id": self.trace.trace_id if self.trace else "",
        }


_NOTHING = Usage()

Observe = Callable[[CallRecord], None]


class CallLog:
    """Tells of every call of a process, once, when it is over."""

    def __init__(self, clock: Clock, observe: Observe, tracing: Tracing | None = None) -> None:
        """`observe` is shown every record that is complete."""
        self._clock = clock
        self._observe = observe
        self._tracing = tracing
        self.inflight = 0
        """How many calls are running."""
        self.stopping = False
        """Whether the process is on its way out: calls that are cut now, are cut by that."""

    def declare_metrics(self, counters: Counters) -> None:
        """Declare the metric of in-flight calls."""
        counters.observable_gauge("calls_in_flight", "In-flight calls.", lambda: self.inflight)

    @contextmanager
    def recording(
        self,
        request_id: str,
        method: str,
        left_s: Callable[[], float | None],
        metadata: Mapping[str, str] = NO_HEADERS,
    ) -> Iterator[CallRecord]:
        """The record of a call that runs within. `left_s` says how long it may still take.

        `metadata` is what came with it, and may say which trace it belongs to.
        """
        record = CallRecord(request_id=request_id, method=method, opened_at=self._clock.now())
        if self._tracing is not None:
            record.trace = self._tracing.begin(method, metadata)
        self.inflight += 1
        try:
            yield record
            record.end = record.finish or REPLAYED
        except Failure as failure:
            record.reason, record.code = failure.reason_name, failure.code.name
            record.end = _broken(record, failure)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._cut(record, left_s())
            raise
        except BaseException:
            record.reason, record.code, record.end = "INTERNAL", "INTERNAL", INTERNAL
            raise
        finally:
            self.inflight -= 1
            record.ended_at = self._clock.now()
            self._observe(record)
            if record.trace is not None:
                record.trace.ended(record)
            if log.isEnabledFor(logging.INFO):
                emit(log, "call.ended", record.line())

    def _cut(self, record: CallRecord, left_s: float | None) -> None:
        """Whose doing it was that the call was cancelled."""
        code = grpc.StatusCode.CANCELLED
        if record.finish:
            # Everything was said; who takes the last message need not ask for more.
            record.end = record.finish
            return
        record.end = SHUTDOWN if self.stopping else CLIENT_GONE
        if left_s is not None and left_s <= 0:
            code, record.end = grpc.StatusCode.DEADLINE_EXCEEDED, DEADLINE
        record.code = code.name


def _broken(record: CallRecord, failure: Failure) -> str:
    if not record.begun_at:
        return REFUSED
    if failure.row.end:
        return failure.row.end
    return "upstream_error" if isinstance(failure, UpstreamError) else INTERNAL
