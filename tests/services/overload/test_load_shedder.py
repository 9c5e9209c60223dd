"""Load shedding: which calls are refused, and for how long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from services.common.retry_after import RETRY_AFTER_MIN_S, RETRY_AFTER_SPREAD_S
from services.config import BoundsConfig
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.overload.load_shedder import (
    UNLIMITED_MEMORY,
    FixedMemoryUse,
    LoadShedder,
    MemoryUse,
    sample_loop_turns,
)
from services.overload.thresholds import (
    CALLS_PER_SAMPLE_WHEN_BUSY,
    QUEUE_WAIT_FOR_S,
    QUEUE_WAIT_MAX_S,
    QUEUE_WAIT_S,
    RECOVERY_S,
    TURN_LATE_FOR_S,
    TURN_LATE_S,
)
from tests.stand.clock import FakeClock

MANY, FEW = 1000, 100
CALLER, OTHER = "Bearer one", "Bearer two"


def load_shedder_of(bounds: BoundsConfig, memory: MemoryUse = UNLIMITED_MEMORY) -> LoadShedder:
    """A load shedder with these bounds, whose chance repeats itself."""
    return LoadShedder(bounds, random.Random(1), memory)  # noqa: S311


@pytest.fixture
def full() -> LoadShedder:
    """A limit of twenty calls, all of them taken by one caller."""
    load_shedder = load_shedder_of(BoundsConfig(calls_max=20))
    start(load_shedder, 0.0, 1, 20)
    return load_shedder


@pytest.fixture
def load_shedder() -> LoadShedder:
    """A limit of many calls, of few while the process is overloaded."""
    return load_shedder_of(BoundsConfig(calls_max=MANY, calls_max_when_late=FEW))


def start(
    load_shedder: LoadShedder, now: float, first: int, last: int, caller: str = CALLER
) -> list[Callable[[], None]]:
    """Start these calls one after the other, and keep them in flight. Return their ends."""
    return [load_shedder.admit(now, in_flight, 0.0, caller) for in_flight in range(first, last + 1)]


def test_a_call_beyond_the_limit_is_refused_for_a_while(full: LoadShedder) -> None:
    """A call within the limit need not wait."""
    assert full.retry_after_s(20, CALLER) is None
    wait_s = full.retry_after_s(21, CALLER)
    assert wait_s is not None
    assert RETRY_AFTER_MIN_S <= wait_s <= RETRY_AFTER_MIN_S + RETRY_AFTER_SPREAD_S


def test_callers_refused_together_return_at_different_times(full: LoadShedder) -> None:
    """Ten refusals have ten different times to wait, all in the documented range."""
    waits = set()
    for _ in range(10):
        with pytest.raises(Failure) as refused:
            full.admit(0.0, 21, 0.0, CALLER)
        assert refused.value.reason == ErrorReason.OVERLOADED
        waits.add(refused.value.retry_after_s)

    low, high = RETRY_AFTER_MIN_S, RETRY_AFTER_MIN_S + RETRY_AFTER_SPREAD_S
    assert len(waits) == 10
    assert all(wait and low <= wait <= high for wait in waits)


def test_light_callers_may_use_spare_capacity(full: LoadShedder) -> None:
    """The flooding caller gets no more; a light one gets a tenth more than the limit."""
    start(full, 0.0, 21, 22, OTHER)

    assert full.retry_after_s(22, CALLER) is not None
    assert full.retry_after_s(23, OTHER) is not None


def test_a_caller_with_half_as_many_calls_is_not_light(full: LoadShedder) -> None:
    """Half as many as the caller of the average call has."""
    start(full, 0.0, 1, 8, OTHER)
    assert full.retry_after_s(21, OTHER) is None
    start(full, 0.0, 1, 1, OTHER)

    assert full.retry_after_s(21, OTHER) is not None


def test_calls_that_ended_no_longer_count_for_their_caller(full: LoadShedder) -> None:
    """A caller that had many calls and has none any more is light."""
    ends = start(full, 0.0, 1, 20, OTHER)
    assert full.retry_after_s(21, OTHER) is not None
    for end in ends:
        end()

    assert full.retry_after_s(21, OTHER) is None


def test_without_a_flood_there_is_no_spare_capacity() -> None:
    """Where all callers have one call each, none is light."""
    load_shedder = load_shedder_of(BoundsConfig(calls_max=20))
    for in_flight in range(1, 21):
        start(load_shedder, 0.0, in_flight, in_flight, f"Bearer {in_flight}")

    assert load_shedder.retry_after_s(21, OTHER) is not None


def test_all_calls_are_refused_while_memory_is_short() -> None:
    """However few are in flight; `scarce` keeps edges from lowering their concurrency limit."""
    load_shedder = load_shedder_of(BoundsConfig(), FixedMemoryUse(is_short=True))
    assert load_shedder.retry_after_s(1, CALLER) is not None
    with pytest.raises(Failure) as refused:
        load_shedder.admit(0.0, 1, 0.0, CALLER)
    assert refused.value.facts == {"scarce": "memory"}


def sample(load_shedder: LoadShedder, begin: float, end: float, turn_s: float) -> None:
    """Sample a turn of the same length every 50 ms between two times."""
    for step in range(round((end - begin) / 0.05) + 1):
        load_shedder.sample_loop_turn(begin + step * 0.05, turn_s, FEW)


def test_late_turns_with_breaks_are_no_overload(load_shedder: LoadShedder) -> None:
    """Long steps, such as large pictures, and bursts of calls do not lower the limit."""
    load_shedder.sample_loop_turn(10.0, 5.0, FEW)
    sample(load_shedder, 10.05, 10.05 + TURN_LATE_FOR_S / 2, 2 * TURN_LATE_S)
    load_shedder.sample_loop_turn(11.0, TURN_LATE_S, FEW)
    sample(load_shedder, 11.05, 11.05 + TURN_LATE_FOR_S / 2, 2 * TURN_LATE_S)

    assert load_shedder.calls_max == MANY


def test_late_turns_without_a_break_lower_the_limit(
    load_shedder: LoadShedder, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit is `calls_max_when_late`, and the log says so once."""
    sample(load_shedder, 10.0, 10.0 + 2 * TURN_LATE_FOR_S, 2 * TURN_LATE_S)

    start(load_shedder, 20.0, 1, FEW)
    with pytest.raises(Failure) as refused:
        load_shedder.admit(20.0, FEW + 1, 0.0, CALLER)
    assert refused.value.reason == ErrorReason.OVERLOADED
    assert [record.getMessage() for record in caplog.records] == ["overload.started"]


def test_the_limit_rises_by_steps_while_turns_are_in_time(load_shedder: LoadShedder) -> None:
    """One step per sample during an overload; one late turn takes all steps back."""
    sample(load_shedder, 10.0, 10.0 + TURN_LATE_FOR_S, 2 * TURN_LATE_S)
    load_shedder.sample_loop_turn(10.5, TURN_LATE_S, FEW)
    assert load_shedder.calls_max == FEW + CALLS_PER_SAMPLE_WHEN_BUSY
    load_shedder.sample_loop_turn(10.55, TURN_LATE_S, FEW + CALLS_PER_SAMPLE_WHEN_BUSY)
    assert load_shedder.calls_max == FEW + 2 * CALLS_PER_SAMPLE_WHEN_BUSY
    load_shedder.sample_loop_turn(10.6, TURN_LATE_S, 1)
    assert load_shedder.calls_max == FEW

    load_shedder.sample_loop_turn(10.65, 2 * TURN_LATE_S, FEW + 2 * CALLS_PER_SAMPLE_WHEN_BUSY)
    assert load_shedder.calls_max == FEW


def test_light_callers_have_spare_capacity_during_an_overload(load_shedder: LoadShedder) -> None:
    """A tenth of the calls in flight; when one of theirs ends, another may start."""
    start(load_shedder, 10.0, 1, 2 * FEW)
    sample(load_shedder, 10.0, 10.0 + TURN_LATE_FOR_S, 2 * TURN_LATE_S)
    assert load_shedder.retry_after_s(2 * FEW, CALLER) is not None

    ends = start(load_shedder, 11.0, 2 * FEW + 1, 2 * FEW + 22, OTHER)
    assert load_shedder.retry_after_s(2 * FEW + 23, "Bearer three") is not None
    ends[0]()
    assert load_shedder.retry_after_s(2 * FEW + 22, "Bearer three") is None


def test_an_overload_ends_after_some_time_without_late_turns(
    load_shedder: LoadShedder, caplog: pytest.LogCaptureFixture
) -> None:
    """Afterwards a single late turn is normal again."""
    sample(load_shedder, 10.0, 10.0 + TURN_LATE_FOR_S, 2 * TURN_LATE_S)
    sample(load_shedder, 11.0, 11.0 + TURN_LATE_FOR_S + RECOVERY_S, 0.0)
    load_shedder.sample_loop_turn(20.0, 2 * TURN_LATE_S, FEW)

    assert load_shedder.calls_max == MANY
    assert [record.getMessage() for record in caplog.records] == [
        "overload.started",
        "overload.ended",
    ]


def refusals(
    load_shedder: LoadShedder, begin: float, end: float, queue_wait_s: float
) -> list[float]:
    """The times at which calls were refused that came every 10 ms, all after the same wait.

    One more is in flight, so that their caller is not light.
    """
    refused_at = []
    end_first = load_shedder.admit(begin, 1, 0.0, CALLER)
    for step in range(round((end - begin) * 100)):
        now = begin + step / 100
        try:
            load_shedder.admit(now, 2, queue_wait_s, CALLER)()
        except Failure:
            refused_at.append(now)
    end_first()
    return refused_at


def test_late_calls_with_breaks_are_no_overload(load_shedder: LoadShedder) -> None:
    """A burst is admitted one call after the other."""
    assert refusals(load_shedder, 10.0, 10.0 + QUEUE_WAIT_FOR_S, 10 * QUEUE_WAIT_S) == []
    load_shedder.admit(11.0, 1, QUEUE_WAIT_S, CALLER)()
    assert refusals(load_shedder, 11.01, 11.01 + QUEUE_WAIT_FOR_S, 10 * QUEUE_WAIT_S) == []


def test_late_calls_without_a_break_are_refused_now_and_then(
    load_shedder: LoadShedder, caplog: pytest.LogCaptureFixture
) -> None:
    """One per `QUEUE_WAIT_S`, until a call is in time; the log says so once."""
    refused_at = refusals(load_shedder, 10.0, 12.0, 1.01 * QUEUE_WAIT_S)
    assert len(refused_at) == pytest.approx((2.0 - QUEUE_WAIT_FOR_S) / QUEUE_WAIT_S, abs=1)
    assert refused_at[0] == pytest.approx(10.0 + QUEUE_WAIT_FOR_S, abs=0.02)

    load_shedder.admit(12.0, 1, QUEUE_WAIT_S, CALLER)()
    assert refusals(load_shedder, 12.01, 12.01 + QUEUE_WAIT_FOR_S, 1.01 * QUEUE_WAIT_S) == []
    assert [record.getMessage() for record in caplog.records] == ["overload.started"]


def test_rare_late_calls_are_no_overload(load_shedder: LoadShedder) -> None:
    """One late call a minute: nothing is known of the time in between."""
    for minute in range(10):
        load_shedder.admit(60.0 * minute, 1, 10 * QUEUE_WAIT_S, CALLER)()


def test_very_late_calls_are_all_refused(load_shedder: LoadShedder) -> None:
    """Above `QUEUE_WAIT_MAX_S` there are too many to be served soon."""
    refused_at = refusals(load_shedder, 10.0, 12.0, 1.01 * QUEUE_WAIT_MAX_S)
    assert len(refused_at) == pytest.approx((2.0 - QUEUE_WAIT_FOR_S) * 100, abs=2)


def test_late_calls_of_light_callers_are_refused_last(load_shedder: LoadShedder) -> None:
    """Only above `QUEUE_WAIT_MAX_S`."""
    start(load_shedder, 9.0, 1, FEW)
    for is_spared, queue_wait_s in ((True, 2 * QUEUE_WAIT_S), (False, 1.01 * QUEUE_WAIT_MAX_S)):
        refused = 0
        for step in range(300):
            caller = CALLER if step % 3 else OTHER
            try:
                load_shedder.admit(10.0 + step / 100, FEW + 1, queue_wait_s, caller)
            except Failure:
                refused += caller == OTHER
        assert (refused == 0) is is_spared


def test_equal_limits_switch_refusals_for_late_calls_off() -> None:
    """With `calls_max_when_late` equal to `calls_max`, calls queue instead."""
    load_shedder = load_shedder_of(BoundsConfig(calls_max=MANY, calls_max_when_late=MANY))
    assert refusals(load_shedder, 10.0, 20.0, 10 * QUEUE_WAIT_MAX_S) == []


def test_a_low_limit_does_not_switch_refusals_for_late_calls_off() -> None:
    """A `calls_max` below `calls_max_when_late` is not equal to it."""
    load_shedder = load_shedder_of(BoundsConfig(calls_max=10))
    assert refusals(load_shedder, 10.0, 12.0, 2 * QUEUE_WAIT_S)


def test_an_overload_ends_in_the_log_without_a_call(
    load_shedder: LoadShedder, caplog: pytest.LogCaptureFixture
) -> None:
    """Samples of the loop end it, too."""
    refusals(load_shedder, 10.0, 12.0, 2 * QUEUE_WAIT_S)
    load_shedder.sample_loop_turn(12.0 + RECOVERY_S, 0.0, 0)

    assert [record.getMessage() for record in caplog.records][-1] == "overload.ended"


def test_an_overload_never_raises_the_limit() -> None:
    """A `calls_max` below `calls_max_when_late` holds during an overload, too."""
    load_shedder = load_shedder_of(BoundsConfig(calls_max=10))
    sample(load_shedder, 10.0, 11.0, 1.0)

    start(load_shedder, 11.0, 1, 10)
    with pytest.raises(Failure):
        load_shedder.admit(11.0, 11, 0.0, CALLER)


@pytest.mark.parametrize("in_flight", [FEW, 0])
async def test_turns_of_a_real_loop_are_sampled_whole(
    load_shedder: LoadShedder, in_flight: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop with more to do than it can lowers the limit, an idle one restores it."""
    for interval in ("SAMPLE_INTERVAL_S", "SAMPLE_INTERVAL_WHEN_BUSY_S"):
        monkeypatch.setattr(f"services.overload.load_shedder.{interval}", 0.001)
    clock = FakeClock()
    async with asyncio.timeout(30):
        sampling = sample_loop_turns(load_shedder, lambda: in_flight, clock)
        task = asyncio.create_task(sampling)
        for turn_s, calls_max in ((2 * TURN_LATE_S, FEW), (TURN_LATE_S / 10, MANY)):
            began = clock.now()
            while load_shedder.calls_max != calls_max:
                clock.advance(turn_s)
                await asyncio.sleep(0)
            assert clock.now() - began > min(TURN_LATE_FOR_S, RECOVERY_S)
        task.cancel()
