"""Idempotency keys while callers cancel, processes die and databases fail."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path

from services.clock import SystemClock
from services.completions.idempotency import SWEEP_MAX, Idempotency
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.metering.ledger import Ledger
from services.storage.base import Database, Transaction
from services.storage.idempotency import Run, claim
from services.storage.leases import end_leases, renew_lease
from services.storage.opening import open_database
from tests.services.completions.idempotent_calls import (
    DAY_MS,
    OWNER,
    PEPPER,
    Model,
    ask,
    call,
    ignore,
    refusal,
)
from tests.stand.failing_database import WatchedDatabase


async def test_a_cancelled_call_releases_the_key(once: Idempotency) -> None:
    """At whatever point it is cancelled, twice."""
    for steps in range(12):
        model = Model()
        model.goes_on.clear()
        asked = call(key=f"order-{steps}")
        task = asyncio.create_task(ask(once, asked, model))
        for _ in range(steps):
            await asyncio.sleep(0)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.gather(*once._releases)
        model.goes_on.set()

        assert await ask(once, asked, model) == (list(model.batches), False)


async def test_a_stored_answer_expires(database: Database) -> None:
    """Then the call runs again, and the sweep deletes all expired keys."""
    await database.write(renew_lease, OWNER, DAY_MS)
    once = Idempotency(database, OWNER, PEPPER, store_s=-0.001)
    model = Model()
    await ask(once, call(), model)
    _, replayed = await ask(once, call(), model)
    assert not replayed

    for number in range(SWEEP_MAX + 1):
        await ask(once, call(key=str(number)), model)
    await once.sweep()

    assert await database.read(_rows) == 0


async def test_keys_of_a_dead_process_expire_with_its_lease(
    database: Database, once: Idempotency
) -> None:
    """Then the call may run again, and the late end of the first call changes nothing."""
    await database.write(renew_lease, "killed", DAY_MS)
    other = Idempotency(database, "killed", PEPPER)
    model = Model()
    abandoned = other.run_once(call(), model, ignore)
    await anext(abandoned)
    busy = await refusal(once, call(), model)
    await database.write(end_leases, "killed")

    _, replayed = await ask(once, call(), model)

    assert busy.reason == ErrorReason.IDEMPOTENCY_IN_PROGRESS
    assert not replayed
    await abandoned.aclose()
    assert (await ask(once, call(), model))[1], "the late release changed the key"


async def test_without_the_database_a_call_with_a_key_does_not_run(database: Database) -> None:
    """Nothing says whether it ran before. A claim that failed may be there all the same."""
    await database.write(renew_lease, OWNER, DAY_MS)
    claims = {1: "before", 3: "after"}
    watched = WatchedDatabase(database, lambda write: claims.get(write, ""))
    once, model = Idempotency(watched, OWNER, PEPPER), Model()
    for _ in claims:
        refused = await refusal(once, call(), model)
        assert refused.reason == ErrorReason.STORAGE_UNAVAILABLE

    assert model.calls == 0
    assert await ask(once, call(), model) == (list(model.batches), False)


async def test_a_caller_gets_an_answer_that_cannot_be_stored(database: Database) -> None:
    """Its key is released by the next sweep."""
    await database.write(renew_lease, OWNER, DAY_MS)
    keep_and_release = {2: "before", 3: "before"}
    watched = WatchedDatabase(database, lambda write: keep_and_release.get(write, ""))
    once, model = Idempotency(watched, OWNER, PEPPER), Model()
    assert await ask(once, call(), model) == (list(model.batches), False)
    busy = await refusal(once, call(), model)
    await once.sweep()

    _, replayed = await ask(once, call(), model)

    assert busy.reason == ErrorReason.IDEMPOTENCY_IN_PROGRESS
    assert not replayed


async def test_a_killed_process_keeps_a_key_until_its_lease_ends(postgres_url: str) -> None:
    """Other processes refuse the call until then; then it runs."""
    caller = Path(__file__).parent / "programs" / "killed_caller.py"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(caller), postgres_url, "acme", "order-1"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    process.kill()
    await process.communicate()
    model = Model()
    refused = set()
    database = await open_database(Path(), postgres_url, SystemClock())
    async with (
        Ledger(database, SystemClock()) as ledger,
        Idempotency(database, ledger.owner, PEPPER) as once,
    ):
        while not model.calls:
            try:
                await ask(once, call(), model)
            except Failure as failure:
                refused.add(failure.reason)
                await asyncio.sleep(0.05)
    await database.close()

    assert refused == {ErrorReason.IDEMPOTENCY_IN_PROGRESS}


async def test_a_sweep_keeps_keys_of_calls_in_flight(database: Database, once: Idempotency) -> None:
    """However long they run."""
    await database.write(claim, Run(account="acme", key="k", id="r"), "print", OWNER)
    await once.sweep()

    assert await database.read(_rows) == 1


def _rows() -> Transaction[int]:
    rows = yield "SELECT count(*) FROM idempotency_keys", ()
    return int(str(rows[0][0]))
