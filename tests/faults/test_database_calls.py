"""A gateway whose database fails at the n-th call, for every n."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.clock import Clock
from services.config import Config
from services.serving import stores
from services.serving.server import open_service
from services.storage.audit import audit
from services.storage.base import Database, DatabaseOptions
from services.storage.opening import open_database
from tests.stand.failing_database import FailingDatabase
from tests.stand.gateway import stored
from tests.stand.held_provider import CHARGE_NANO_USD, ask, audited_charges, held_gateway

UNAVAILABLE = {"auth_unavailable", "storage_unavailable"}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("stream", [False, True])
async def test_any_failing_database_call_leaves_the_books_right(
    tmp_path: Path,
    each_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    *,
    stream: bool,
) -> None:
    """The call is answered or 503, never 401; the next is answered; no hold stays. Row 86."""
    opened: list[FailingDatabase] = []

    async def opening(state: Path, url: str, clock: Clock, options: DatabaseOptions) -> Database:
        opened.append(FailingDatabase(await open_database(state, url, clock, options)))
        return opened[-1]

    monkeypatch.setattr(stores, "open_database", opening)
    answered = nth = 0
    failed = True
    async with held_gateway(tmp_path, database_url=each_database_url) as (gateway, upstream, _):
        database = opened[-1]
        while failed:
            nth += 1
            _, key = await gateway.service.key_maker.make("default")
            headers = {"Authorization": f"Bearer {key}"}
            database.arm(nth, when)
            reply = await ask(gateway, headers, stream=stream)
            assert reply.status == 200 or (reply.status, reply.code in UNAVAILABLE) == (503, True)
            answered += reply.status == 200
            await settled(database, answered)
            failed = database.disarm()

            assert (await ask(gateway, headers, stream=stream)).status == 200
            answered += 1
            await settled(database, answered)
        assert nth > 2
    async with open_service(Config(state=stored(each_database_url)), tmp_path, {}):
        pass  # The start recovers the holds whose commit was not acknowledged.
    assert len(upstream.requests) == answered
    ends = await audited_charges(tmp_path, each_database_url)
    assert "held" not in ends
    assert ends["settled"] == CHARGE_NANO_USD * answered


async def settled(database: FailingDatabase, calls: int) -> None:
    """Returns when so many calls are settled. The books are right until then."""
    while True:
        result = await database.untroubled.read(audit)
        assert not result.findings
        if result.counts["settled"] >= calls:
            return
        await asyncio.sleep(0.01)  # The outbox announces nothing.
