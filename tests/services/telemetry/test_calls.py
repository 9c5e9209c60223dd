from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import get_args

import msgspec
import pytest

from services.admission.interrupt import CallInterrupt, key_revoked
from services.common.json_logs import JsonFormatter
from services.domain.error_reason import ErrorReason
from services.domain.events import FinishReason
from services.domain.usage import Usage
from services.errors import Failure, UpstreamError, deadline_passed, shutting_down
from services.reason_table import ROWS
from services.telemetry.calls import DEADLINE_MARGIN_S, ENDS, FINISHES, CallLog, CallRecord
from services.telemetry.ended_calls import OBSERVED_MAX, EndedCalls
from tests.stand.call_records import recorded
from tests.stand.clock import FakeClock


class Told:
    """A log of calls, and its records."""

    def __init__(self, clock: FakeClock) -> None:
        self.batches: list[Sequence[CallRecord]] = []
        self.log = CallLog(clock)
        self.log.observers.append(EndedCalls(self.batches.append))

    @property
    def records(self) -> Sequence[CallRecord]:
        """The records of all calls that have ended."""
        self.log.observers[0].deliver()
        return [record for batch in self.batches for record in batch]

    def end_with(
        self, error: BaseException, *, begun: bool = False, left_s: float | None = None
    ) -> CallRecord:
        """A call that ends with an error."""

        def call() -> None:
            with recorded(self.log, "req-1", "stream", lambda: left_s) as record:
                record.begun_at = 1.0 if begun else 0.0
                raise error

        with pytest.raises(type(error)):
            call()
        return self.records[-1]


@pytest.fixture
def told(clock: FakeClock) -> Told:
    return Told(clock)


def test_every_finish_reason_has_a_name() -> None:
    """A new finish reason of the contract needs a row."""
    assert FINISHES.keys() == set(get_args(FinishReason)) - {""}
    assert {*FINISHES.values(), *(row.end for row in ROWS if row.end)} <= ENDS


@pytest.mark.parametrize(
    ("error", "begun", "end", "code"),
    [
        (Failure(ErrorReason.MODEL_NOT_FOUND, ""), False, "refused", "INVALID_ARGUMENT"),
        (UpstreamError(ErrorReason.UPSTREAM_ERROR, ""), False, "refused", "UNAVAILABLE"),
        (
            UpstreamError(ErrorReason.UPSTREAM_ERROR, ""),
            True,
            "upstream_error",
            "UNAVAILABLE",
        ),
        (
            UpstreamError(ErrorReason.UPSTREAM_STALLED, ""),
            True,
            "upstream_stall",
            "DEADLINE_EXCEEDED",
        ),
        (Failure(ErrorReason.KEY_REVOKED, ""), True, "revoked", "UNAUTHENTICATED"),
        (Failure(ErrorReason.STORAGE_UNAVAILABLE, ""), True, "internal", "UNAVAILABLE"),
        (ZeroDivisionError(), True, "internal", "INTERNAL"),
        (asyncio.CancelledError(), False, "client_gone", "CANCELLED"),
        (GeneratorExit(), True, "client_gone", "CANCELLED"),
    ],
)
def test_how_calls_end(told: Told, error: BaseException, begun: bool, end: str, code: str) -> None:
    """Each failure has its end, which depends on whether an answer had begun."""
    record = told.end_with(error, begun=begun)

    assert (record.end, record.code) == (end, code)
    assert record.end in ENDS
    assert len(told.records) == 1


def test_the_cause_of_a_cancellation(told: Told) -> None:
    """An expired deadline, else a shutdown of the process, else the caller."""
    assert told.end_with(asyncio.CancelledError(), left_s=5.0).end == "client_gone"
    for left_s in (0.0, DEADLINE_MARGIN_S):  # The caller's own deadline passes a little earlier.
        assert told.end_with(asyncio.CancelledError(), left_s=left_s).end == "deadline"
    told.log.stopping = True
    assert told.end_with(asyncio.CancelledError(), left_s=5.0).end == "shutdown"


async def test_an_interrupted_call_ends_as_its_interrupt_says(told: Told) -> None:
    """Also where its caller leaves before it has read the failure."""

    def end_with(failure: Callable[[], Failure], left_s: float) -> str:
        with recorded(told.log, "req-1", "stream", lambda: left_s) as record:
            record.begun_at = 1.0
            record.interrupt = interrupt = CallInterrupt()
            interrupt.trigger(failure)
            raise GeneratorExit

    for failure, end in ((key_revoked, "revoked"), (deadline_passed, "deadline")):
        with pytest.raises(GeneratorExit):
            end_with(failure, 0.0 if end == "deadline" else 5.0)
        assert told.records[-1].end == end


@pytest.mark.parametrize("is_awaited", [False, True])
@pytest.mark.parametrize(
    ("failure", "left_s", "end"),
    [(deadline_passed, 0.0, "deadline"), (shutting_down, 5.0, "shutdown")],
)
async def test_a_call_that_is_cut_ends_as_one_that_its_transport_cuts(
    told: Told, *, failure: Callable[[], Failure], left_s: float, end: str, is_awaited: bool
) -> None:
    """Where that happens between two batches, as where one is awaited: no answer has begun."""
    told.log.stopping = end == "shutdown"
    error = failure() if is_awaited else GeneratorExit()

    def cut() -> None:
        with recorded(told.log, "req-1", "stream", lambda: left_s) as record:
            record.interrupt = interrupt = CallInterrupt()
            interrupt.trigger(failure)
            raise error

    with pytest.raises(type(error)):
        cut()
    assert (told.records[-1].end, told.records[-1].reason) == (end, "")


def test_calls_are_counted_while_they_run(told: Told) -> None:
    """Each exit of the context ends the count."""
    with recorded(told.log, "a", "create", lambda: None):
        with recorded(told.log, "b", "create", lambda: None):
            assert len(told.log.live) == 2
        told.end_with(asyncio.CancelledError())
        assert len(told.log.live) == 1
    assert len(told.log.live) == 0


@pytest.mark.parametrize("calls", [1, OBSERVED_MAX - 1, OBSERVED_MAX, 2 * OBSERVED_MAX + 1])
def test_observers_get_each_call_once_and_in_order(told: Told, calls: int) -> None:
    """In batches that are bounded, however late they are asked for."""
    for number in range(calls):
        with recorded(told.log, str(number), "create", lambda: None):
            pass

    assert [int(record.request_id) for record in told.records] == list(range(calls))
    assert max(map(len, told.batches)) <= OBSERVED_MAX


def test_observers_get_a_call_that_is_read_on_as_it_was_when_its_caller_left(told: Told) -> None:
    """At once: the rest of its answer may fail, and its cost comes later."""
    with recorded(told.log, "ended", "create", lambda: None):
        pass
    assert not told.batches
    with recorded(told.log, "read on", "create", lambda: None) as record:
        record.facts.hold_id = "hold-1"

    assert [each.request_id for each in told.batches[0]] == ["ended", "read on"]


def test_time_per_token_is_a_mean(told: Told, clock: FakeClock) -> None:
    """The mean over the tokens after the first."""
    with recorded(told.log, "a", "stream", lambda: None) as record:
        clock.advance(2.0)
        record.begun_at = clock.now()
        record.usage = Usage(completion_token_count=11)
        clock.advance(1.0)

    assert record.token_gap_s == pytest.approx(0.1)
    assert (record.line()["ttft_ms"], record.line()["duration_ms"]) == (2000.0, 3000.0)


def test_a_call_is_one_line_of_the_log(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """A call that was refused before its key was known, too."""
    with caplog.at_level(logging.INFO):
        told.end_with(Failure(ErrorReason.INVALID_API_KEY, "secret"))

    (entry,) = caplog.records
    line = msgspec.json.decode(JsonFormatter().format(entry))
    assert line["event"] == "call.ended"
    assert line["reason"] == "INVALID_API_KEY"
    assert (line["key_id"], line["channel"], line["ttft_ms"]) == ("", "", None)
    assert "secret" not in str(line)


def test_a_quiet_log_costs_no_line(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """With level INFO off, only the metrics get the record."""
    with caplog.at_level(logging.WARNING):
        told.end_with(GeneratorExit())

    assert not caplog.records
    assert told.records[0].end == "client_gone"
