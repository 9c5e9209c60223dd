"""How many calls a process runs at a time."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.clock import SystemClock
from services.common.fair_share import Place
from services.config import BoundsConfig
from services.errors import Failure
from services.overload.load_shedder import (
    CALM_S,
    LATE_FOR_S,
    LATE_S,
    MORE,
    RETRY_AFTER_S,
    SPREAD_S,
    WAITED_FOR_S,
    WAITED_LONG_S,
    WAITED_S,
    LoadShedder,
    watch_turns,
)
from services.overload.memory_pressure import Seen

MANY, FEW = 1000, 100
CALLER, OTHER = "Bearer one", "Bearer two"


@pytest.fixture
def small() -> LoadShedder:
    """Takes twenty calls; the caller has all of them."""
    crowd = LoadShedder(BoundsConfig(calls_max=20), random.Random(1))  # noqa: S311
    take(crowd, 0.0, 1, 20)
    return crowd


def take(
    crowd: LoadShedder, now: float, first: int, last: int, caller: str = CALLER
) -> list[Place]:
    """These calls come, one after the other, and stay."""
    places = [crowd.place(now, running, 0.0, caller) for running in range(first, last + 1)]
    for place in places:
        place.__enter__()
    return places


def test_says_how_long_to_stay_away(small: LoadShedder) -> None:
    """Who may come in need not wait; who may not waits as long as one who was refused."""
    assert small.wait_s(20, CALLER) is None
    wait_s = small.wait_s(21, CALLER)
    assert wait_s is not None
    assert RETRY_AFTER_S <= wait_s <= RETRY_AFTER_S + SPREAD_S


def test_tells_the_others_to_come_back_at_different_times(small: LoadShedder) -> None:
    """Those who are refused together do not return together."""
    waits = set()
    for _ in range(10):
        with pytest.raises(Failure) as refused:
            small.place(0.0, 21, 0.0, CALLER)
        assert refused.value.reason == reasons.ERROR_REASON_OVERLOADED
        waits.add(refused.value.retry_after_s)

    assert len(waits) == 10
    assert all(wait and RETRY_AFTER_S <= wait <= RETRY_AFTER_S + SPREAD_S for wait in waits)


def test_one_caller_floods(small: LoadShedder) -> None:
    """Who has all places gets no more; who has few gets a tenth more than there are."""
    take(small, 0.0, 21, 22, OTHER)

    assert small.wait_s(22, CALLER) is not None
    assert small.wait_s(23, OTHER) is not None


def test_a_caller_has_no_few_calls_any_more(small: LoadShedder) -> None:
    """Half as many as the caller of the average call has are not few."""
    take(small, 0.0, 1, 8, OTHER)
    assert small.wait_s(21, OTHER) is None
    take(small, 0.0, 1, 1, OTHER)

    assert small.wait_s(21, OTHER) is not None


def test_places_are_left(small: LoadShedder) -> None:
    """Who had many calls, and has none any more, has few."""
    places = take(small, 0.0, 1, 20, OTHER)
    assert small.wait_s(21, OTHER) is not None
    for place in places:
        place.__exit__(None, None, None)

    assert small.wait_s(21, OTHER) is None


def test_all_callers_have_few_calls() -> None:
    """Then nobody floods, and there is not one place more than there are."""
    crowd = LoadShedder(BoundsConfig(calls_max=20), random.Random(1))  # noqa: S311
    for running in range(1, 21):
        take(crowd, 0.0, running, running, f"Bearer {running}")

    assert crowd.wait_s(21, OTHER) is not None


def test_no_memory_is_left() -> None:
    """Then nobody gets in, however few calls there are, and edges learn nothing about places."""
    crowd = LoadShedder(BoundsConfig(), random.Random(1), Seen(is_short=True))  # noqa: S311
    assert crowd.wait_s(1, CALLER) is not None
    with pytest.raises(Failure) as refused:
        crowd.place(0.0, 1, 0.0, CALLER)
    assert refused.value.facts == {"scarce": "memory"}


@pytest.fixture
def crowd() -> LoadShedder:
    """Takes many, or a few while the loop is late."""
    return LoadShedder(BoundsConfig(calls_max=MANY, calls_max_when_late=FEW), random.Random(1))  # noqa: S311


def looks(crowd: LoadShedder, begin: float, end: float, turn_s: float) -> None:
    """All turns of the loop between two times take so long."""
    for step in range(round((end - begin) / 0.05) + 1):
        crowd.look(begin + step * 0.05, turn_s, FEW)


def test_is_late_for_a_moment(crowd: LoadShedder) -> None:
    """Long steps, as large pictures are, and many calls at once turn nobody away."""
    crowd.look(10.0, 5.0, FEW)
    looks(crowd, 10.05, 10.05 + LATE_FOR_S / 2, 2 * LATE_S)
    crowd.look(11.0, LATE_S, FEW)
    looks(crowd, 11.05, 11.05 + LATE_FOR_S / 2, 2 * LATE_S)

    assert crowd.calls_max == MANY


def test_is_late_without_a_break(crowd: LoadShedder, caplog: pytest.LogCaptureFixture) -> None:
    """Who cannot keep up takes only a few, and tells the log once."""
    looks(crowd, 10.0, 10.0 + 2 * LATE_FOR_S, 2 * LATE_S)

    take(crowd, 20.0, 1, FEW)
    with pytest.raises(Failure) as refused:
        crowd.place(20.0, FEW + 1, 0.0, CALLER)
    assert refused.value.reason == reasons.ERROR_REASON_OVERLOADED
    assert [record.getMessage() for record in caplog.records] == ["overload.begins"]


def test_overloaded_between_late_turns(crowd: LoadShedder) -> None:
    """While it is in time a few more are taken each time; when it is late there is no patience."""
    looks(crowd, 10.0, 10.0 + LATE_FOR_S, 2 * LATE_S)
    crowd.look(10.5, LATE_S, FEW)
    assert crowd.calls_max == FEW + MORE
    crowd.look(10.55, LATE_S, FEW + MORE)
    assert crowd.calls_max == FEW + 2 * MORE
    crowd.look(10.6, LATE_S, 1)
    assert crowd.calls_max == FEW

    crowd.look(10.65, 2 * LATE_S, FEW + 2 * MORE)
    assert crowd.calls_max == FEW


def test_one_caller_floods_an_overloaded_process(crowd: LoadShedder) -> None:
    """Others get a tenth more, while it is late, too; when their calls end, others again."""
    take(crowd, 10.0, 1, 2 * FEW)
    looks(crowd, 10.0, 10.0 + LATE_FOR_S, 2 * LATE_S)
    assert crowd.wait_s(2 * FEW, CALLER) is not None

    places = take(crowd, 11.0, 2 * FEW + 1, 2 * FEW + 22, OTHER)
    assert crowd.wait_s(2 * FEW + 23, "Bearer three") is not None
    places[0].__exit__(None, None, None)
    assert crowd.wait_s(2 * FEW + 22, "Bearer three") is None


def test_calm_again(crowd: LoadShedder, caplog: pytest.LogCaptureFixture) -> None:
    """After a while without a late turn it is as in the beginning."""
    looks(crowd, 10.0, 10.0 + LATE_FOR_S, 2 * LATE_S)
    looks(crowd, 11.0, 11.0 + LATE_FOR_S + CALM_S, 0.0)
    crowd.look(20.0, 2 * LATE_S, FEW)

    assert crowd.calls_max == MANY
    assert [record.getMessage() for record in caplog.records] == [
        "overload.begins",
        "overload.ends",
    ]


def asks(crowd: LoadShedder, begin: float, end: float, waited_s: float) -> list[float]:
    """Calls come every 10 ms between two times, and have waited so long. When one was refused.

    One more is under way, so that their caller has not few.
    """
    refused_at = []
    with crowd.place(begin, 1, 0.0, CALLER):
        for step in range(round((end - begin) * 100)):
            now = begin + step / 100
            try:
                crowd.place(now, 2, waited_s, CALLER)
            except Failure:
                refused_at.append(now)
    return refused_at


def test_calls_that_wait_for_a_moment(crowd: LoadShedder) -> None:
    """Many that come at once are taken in one after the other, which is no overload."""
    assert asks(crowd, 10.0, 10.0 + WAITED_FOR_S, 10 * WAITED_S) == []
    crowd.place(11.0, 1, WAITED_S, CALLER)
    assert asks(crowd, 11.01, 11.01 + WAITED_FOR_S, 10 * WAITED_S) == []


def test_calls_that_wait_without_a_break(
    crowd: LoadShedder, caplog: pytest.LogCaptureFixture
) -> None:
    """Now and then one is refused, until one need not wait; the log tells of it once."""
    refused_at = asks(crowd, 10.0, 12.0, 1.01 * WAITED_S)
    assert len(refused_at) == pytest.approx((2.0 - WAITED_FOR_S) / WAITED_S, abs=1)
    assert refused_at[0] == pytest.approx(10.0 + WAITED_FOR_S, abs=0.02)

    crowd.place(12.0, 1, WAITED_S, CALLER)
    assert asks(crowd, 12.01, 12.01 + WAITED_FOR_S, 1.01 * WAITED_S) == []
    assert [record.getMessage() for record in caplog.records] == ["overload.begins"]


def test_a_call_now_and_then_that_waits(crowd: LoadShedder) -> None:
    """Nobody knows what was between them: as likely as not, no call at all."""
    for minute in range(10):
        crowd.place(60.0 * minute, 1, 10 * WAITED_S, CALLER)


def test_calls_that_have_waited_long(crowd: LoadShedder) -> None:
    """There are too many to be served soon: each of them is told so."""
    refused_at = asks(crowd, 10.0, 12.0, 1.01 * WAITED_LONG_S)
    assert len(refused_at) == pytest.approx((2.0 - WAITED_FOR_S) * 100, abs=2)


def test_calls_of_others_that_wait(crowd: LoadShedder) -> None:
    """Among calls that wait for who floods, those of callers with few are refused only late."""
    take(crowd, 9.0, 1, FEW)
    for others, waited_s in ((True, 2 * WAITED_S), (False, 1.01 * WAITED_LONG_S)):
        refused = 0
        for step in range(300):
            caller = CALLER if step % 3 else OTHER
            try:
                crowd.place(10.0 + step / 100, FEW + 1, waited_s, caller)
            except Failure:
                refused += caller == OTHER
        assert (refused == 0) is others


def test_all_are_to_be_served_late() -> None:
    """Who takes as many while overloaded as ever refuses nobody for having waited."""
    crowd = LoadShedder(BoundsConfig(calls_max=MANY, calls_max_when_late=MANY), random.Random(1))  # noqa: S311
    assert asks(crowd, 10.0, 20.0, 10 * WAITED_LONG_S) == []


def test_few_places_are_no_reason_to_wait() -> None:
    """Who takes few in any case refuses those that wait for them all the same."""
    crowd = LoadShedder(BoundsConfig(calls_max=10), random.Random(1))  # noqa: S311
    assert asks(crowd, 10.0, 12.0, 2 * WAITED_S)


def test_nobody_waits_any_more(crowd: LoadShedder, caplog: pytest.LogCaptureFixture) -> None:
    """The log tells of the end even where no call comes."""
    asks(crowd, 10.0, 12.0, 2 * WAITED_S)
    crowd.look(12.0 + CALM_S, 0.0, 0)

    assert [record.getMessage() for record in caplog.records][-1] == "overload.ends"


def test_few_are_as_many_as_may_be() -> None:
    """Who may take less in any case takes that much, late or not."""
    crowd = LoadShedder(BoundsConfig(calls_max=10), random.Random(1))  # noqa: S311
    looks(crowd, 10.0, 11.0, 1.0)

    take(crowd, 11.0, 1, 10)
    with pytest.raises(Failure):
        crowd.place(11.0, 11, 0.0, CALLER)


@pytest.mark.parametrize("running", [FEW, 0])
async def test_late_turns_are_seen(crowd: LoadShedder, running: int) -> None:
    """Turns are looked at whole, of a real loop that has more to do than it can."""
    async with asyncio.timeout(30):
        watching = asyncio.create_task(watch_turns(crowd, lambda: running, SystemClock()))
        for late_s, calls_max in ((2 * LATE_S, FEW), (0.0, MANY)):
            turns = 0
            while crowd.calls_max != calls_max:
                time.sleep(late_s)  # noqa: ASYNC251 - that is what being late means
                await asyncio.sleep(0)
                turns += 1
            assert turns > 0
        watching.cancel()
