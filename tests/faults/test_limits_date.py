"""A Valkey whose date jumps, under the limits of a whole gateway.

The test sets its date, which otherwise stands still, so that windows pass in no time.
"""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest

from services.storage.counters import LEASE_S, PERIOD_US
from tests.faults.fault_stand import PATH
from tests.faults.preload import compiled, needs_compiler
from tests.faults.processes import ASKED, priced_configuration
from tests.faults.test_broken_holds import going_on
from tests.stand.held_provider import HeldProvider
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream
from tests.stand.valkey import running_valkey

pytestmark = needs_compiler

WINDOW_S = PERIOD_US / 1e6
HOUR_S, QUARTER_S = 3600.0, 90 * 86_400.0
RPM, PLACES = 5, 2

LIMITS = """
[[limits]]
key = "*"
{limit}

[state]
redis_url = "redis://127.0.0.1:{port}"
"""


class Date:
    """The date of the processes that have it preloaded."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._us = int(time.time() * 1e6)
        self.pass_by(0)

    def pass_by(self, seconds: float) -> None:
        """Moves the date forward at once, or back."""
        self._us += round(seconds * 1e6)
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(self._us.to_bytes(8, "little"))


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway that counts in a Valkey."""

    server: Server
    """The gateway."""
    date: Date
    """The date of the Valkey."""
    provider: HeldProvider
    """The provider."""
    http: aiohttp.ClientSession
    """A client that has a key."""

    async def begin(self, calls: int) -> Sequence[aiohttp.ClientResponse]:
        """Those of these calls that are admitted. The others get Retry-After."""
        url = f"http://{await self.server.address('http')}{PATH}"
        answers = [await self.http.post(url, json=ASKED) for _ in range(calls)]
        for refusal in answers:
            if refusal.status != 200:
                assert (refusal.status, await code(refusal)) == (429, "rate_limit_exceeded")
                assert 1 <= int(refusal.headers["Retry-After"]) <= WINDOW_S + 1
        return [answer for answer in answers if answer.status == 200]

    async def admitted(self, calls: int) -> int:
        """The number of these calls that are admitted and answered."""
        answers = await self.begin(calls)
        await end(answers)
        return len(answers)


async def code(answer: aiohttp.ClientResponse) -> object:
    """The error code of a failed call."""
    return (await answer.json())["error"]["code"]


async def end(answers: Sequence[aiohttp.ClientResponse]) -> None:
    """Reads answers to their ends."""
    for answer in answers:
        assert (await answer.text()).endswith("data: [DONE]\n\n")


@asynccontextmanager
async def counting(
    folder: Path, limit: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    """A gateway, its provider and its Valkey, which decides to the end."""
    date = Date(folder / "date")
    async with AsyncExitStack() as stack:
        with monkeypatch.context() as environment:
            environment.setenv("LD_PRELOAD", str(await compiled("date", folder)))
            environment.setenv("DATE", str(date.file))
            valkey = stack.enter_context(running_valkey())
        upstream = await stack.enter_async_context(FakeUpstream())
        provider = HeldProvider()
        upstream.play(provider)
        config = priced_configuration(upstream.url)
        config += LIMITS.format(limit=limit, port=valkey.port)
        server = await stack.enter_async_context(running_server(folder, config))
        bearer = {"Authorization": f"Bearer {server.key}"}
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=bearer))
        yield Place(server, date, provider, http)
        assert not [line for line in server.lines if line["event"] == "redis.disconnected"]


@pytest.mark.parametrize("jump_s", [HOUR_S, QUARTER_S, -HOUR_S, -QUARTER_S])
async def test_a_jump_of_the_date_costs_one_burst_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """A jump ahead lets one more burst through, one back none; then all is as before. Row 91."""
    async with counting(tmp_path, f"rpm = {RPM}", monkeypatch) as place:
        assert await place.admitted(RPM + 3) == RPM

        place.date.pass_by(jump_s)
        assert await place.admitted(RPM + 3) == (RPM if jump_s > 0 else 0)

        for _ in range(2):
            place.date.pass_by(WINDOW_S / RPM)
            assert await place.admitted(3) == 1
        for _ in range(2):
            place.date.pass_by(WINDOW_S)
            assert await place.admitted(RPM + 3) == RPM


async def test_an_unknown_refill_costs_one_window_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refill before a jump back is lost, which costs one minute's amount at most. Row 91."""
    async with counting(tmp_path, f"rpm = {RPM}", monkeypatch) as place:
        assert await place.admitted(RPM) == RPM
        # In one step: Valkey looks at the date ten times a second, and must not see the window end.
        place.date.pass_by(WINDOW_S - HOUR_S)
        assert await place.admitted(RPM) == 0

        place.date.pass_by(WINDOW_S)

        assert await place.admitted(RPM + 3) == RPM


@pytest.mark.parametrize("jump_s", [HOUR_S, QUARTER_S, -HOUR_S, -QUARTER_S])
async def test_a_jump_of_the_date_gives_each_slot_once_more_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """A jump ahead gives each slot once more, one back none; when all have ended, all are free.

    Row 91.
    """
    async with counting(tmp_path, f"concurrency = {PLACES}", monkeypatch) as place:
        for _ in range(2):
            place.provider.goes_on.clear()
            answers = await place.begin(PLACES + 1)
            assert len(answers) == PLACES

            place.date.pass_by(jump_s)
            more = await place.begin(PLACES + 1)
            assert len(more) <= (PLACES if jump_s > 0 else 0)
            assert await place.begin(1) == []
            place.provider.goes_on.set()
            await end([*answers, *more])


async def test_slots_of_a_dead_process_expire_with_their_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a jump back a killed process keeps its slots for a lease, not for the jump. Row 91."""
    async with counting(tmp_path, f"concurrency = {PLACES}", monkeypatch) as dead:
        dead.provider.goes_on.clear()
        assert len(await dead.begin(PLACES)) == PLACES
        dead.server.send_signal(signal.SIGKILL)
        await dead.server.ended()
        dead.date.pass_by(-HOUR_S)
        async with going_on(tmp_path) as gateway:
            place = replace(dead, server=gateway.server)
            assert await place.begin(1) == []
            place.date.pass_by(LEASE_S - 1)
            assert await place.begin(1) == []

            place.date.pass_by(2)

            answers = await place.begin(PLACES + 1)
            assert len(answers) == PLACES
            place.provider.goes_on.set()
            await end(answers)
