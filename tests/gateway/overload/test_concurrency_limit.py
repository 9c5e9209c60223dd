"""How many calls an edge makes at a time, as services teach it by refusing one."""

from __future__ import annotations

import asyncio
import json
import logging

import grpc
import pytest
from pomogator.chat.v1 import content_pb2 as content

from gateway.overload.concurrency_limit import GROWS_EVERY_S, ConcurrencyLimit
from gateway.overload.connection_limit import RETRY_AFTER_S, SPREAD_S
from tests.gateway.conftest import Edge
from tests.stand.clock import FakeClock
from tests.stand.service import Fault, Pause, answer

PATH = "/v1/chat/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
CALLER, SMALL = "Bearer one", "Bearer two"
FULL = Fault(code=grpc.StatusCode.UNAVAILABLE, reason="OVERLOADED", retry_after_s=1.5)


class Load:
    """Calls that are under way, and a window for them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.running = 0
        self.window = ConcurrencyLimit(
            lambda: self.running, lambda caller: caller == SMALL, self.clock.now
        )

    async def ask(self, calls: int, caller: str = CALLER) -> int:
        """So many calls are asked for one after the other. How many are under way then."""
        for _ in range(calls):
            if self.window.wait_s(caller) is None:
                self.running += 1
            await asyncio.sleep(0)
        return self.running


@pytest.fixture
def load() -> Load:
    return Load()


async def test_there_is_no_bound_before_a_refusal(load: Load) -> None:
    """Nobody has to find a number: a service that takes all calls gets all."""
    assert await load.ask(10_000) == 10_000


async def test_leaves_something_to_who_has_few_calls(load: Load) -> None:
    """One who floods gets what is enough for the services; others a tenth more than that."""
    load.window.overrun(21)

    assert await load.ask(80) == 20
    assert await load.ask(80, SMALL) == 22
    assert await load.ask(80) == 22


async def test_a_refusal_says_how_many_are_enough(load: Load) -> None:
    """A few less than were under way before the call that was refused; the rest wait a while."""
    load.window.overrun(50)

    assert await load.ask(80) == 48
    assert load.window.refused == 32
    wait_s = load.window.wait_s(CALLER)
    assert wait_s is not None
    assert RETRY_AFTER_S <= wait_s <= RETRY_AFTER_S + SPREAD_S


async def test_the_first_of_many_refusals_counts(load: Load) -> None:
    """Those that were sent after it had waited in the same queue."""
    for before in (52, 50, 51, 53):
        load.window.overrun(before)

    assert load.window.size == 48


async def test_a_bound_that_is_felt_grows_faster_and_faster(load: Load) -> None:
    """By one, two, four, then by a sixteenth a second, until a service refuses again."""
    load.window.overrun(100)
    sizes = [await load.ask(200)]
    for _ in range(5):
        load.clock.advance(GROWS_EVERY_S)
        sizes.append(await load.ask(200))
    load.window.overrun(110)
    load.running = 0
    sizes.append(await load.ask(200))
    load.clock.advance(GROWS_EVERY_S)
    sizes.append(await load.ask(200))

    assert sizes == [95, 96, 98, 102, 108, 114, 105, 106]


async def test_a_bound_that_nobody_feels_stays(load: Load) -> None:
    """What was never tried is not known: a quiet hour opens no door to a flood."""
    load.window.overrun(10)
    load.clock.advance(3600)

    assert await load.ask(9) == 9
    assert load.window.size == 10


async def test_one_call_is_always_made(load: Load) -> None:
    """Else nobody would ever learn that there is room again."""
    load.window.overrun(0)

    assert await load.ask(5) == 1


async def test_places_are_not_promised_twice(load: Load) -> None:
    """Of those who ask in one turn of the loop, no more are let in than have room."""
    load.window.overrun(3)

    assert [load.window.wait_s(CALLER) is None for _ in range(5)] == [True] * 3 + [False] * 2
    await asyncio.sleep(0)  # None of them has made a call after all.
    assert load.window.wait_s(CALLER) is None


async def test_the_log_tells_of_it_once_a_second(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    """However many are refused."""
    load.window.overrun(2)
    with caplog.at_level(logging.WARNING, "gateway"):
        await load.ask(100)

    assert [record.getMessage() for record in caplog.records] == ["services.full"]


@pytest.mark.parametrize("edge", ["tcp", "unix"], indirect=True)
async def test_an_edge_asks_no_full_service(edge: Edge) -> None:
    """Beyond what the service has taken nothing is sent, and within it everything again."""
    held = edge.script.answer = Pause()
    running = asyncio.create_task(edge.http.post(PATH, json=ASKED))
    await held.reached.wait()

    edge.script.answer = FULL
    statuses, waits = [], []
    for _ in range(4):
        async with edge.http.post(PATH, json=ASKED) as refused:
            statuses.append(refused.status)
            waits.append(float(refused.headers["retry-after-ms"]) / 1000)
            assert json.loads(await refused.read())["error"]["code"] == "overloaded"
    asked = len(edge.script.specs)
    edge.script.answer = answer(content.ContentPart(text="Hi"))
    held.go_on.set()
    (await running).release()
    async with edge.http.post(PATH, json=ASKED) as served:
        assert served.status == 200

    assert statuses == [503] * 4
    assert waits[0] == 1.5  # As the service said; the others' are the edge's.
    assert asked == 2, "the service was asked although it was full"
