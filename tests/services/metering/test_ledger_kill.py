"""Ledger under SIGKILL: real processes that spend, and are killed.

`POMOGATOR_KILLS` says how often; the default is short enough for every day.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from services.clock import SystemClock
from services.metering.ledger import Ledger
from services.storage.accounts import account_by_name
from services.storage.audit import audit
from services.storage.base import Database, Transaction
from services.storage.opening import open_database

SPENDER = Path(__file__).parent / "programs" / "spender.py"
KILLS = int(os.environ.get("POMOGATOR_KILLS", "6"))
PROCESSES = 3
"""On a database server. SQLite has one writing process."""


async def spender(where: str, name: str) -> Process:
    """Start a process that spends."""
    return await asyncio.create_subprocess_exec(
        sys.executable, str(SPENDER), where, name,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=PIPE,
    )  # fmt: skip


async def kill_after(process: Process, lines: int) -> list[list[str]]:
    """Kill the process after some lines. Return all lines: what the ledger confirmed."""
    assert process.stdout is not None
    said = [await process.stdout.readline() for _ in range(lines)]
    process.kill()
    said += (await process.stdout.read()).splitlines()
    await process.wait()
    return [line.decode().split() for line in said if line.strip()]


def kept(words: list[str]) -> Transaction[bool]:
    """Return whether the database still has what the ledger confirmed."""
    kind, name, *amount = words
    if kind == "credit":
        rows = yield "SELECT amount FROM transfers WHERE id = ?", (f"credit:{name}",)
        return [row[0] for row in rows] == [int(amount[0])]
    rows = yield "SELECT state, charge FROM holds WHERE id = ?", (name,)
    if kind == "settled":
        return [tuple(row) for row in rows] == [("settled", int(amount[0]))]
    return len(rows) == 1


async def all_ended(database: Database) -> None:
    """Wait until no hold is open."""
    async with Ledger(database, SystemClock()) as ledger:
        while (await database.read(audit)).counts["held"]:
            await asyncio.sleep(0.1)
            await ledger.sweep()


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_a_kill_loses_and_doubles_nothing(each_database_url: str, tmp_path: Path) -> None:
    """After any kill confirmed writes exist, all holds end, and the ledger is consistent."""
    chance = random.SystemRandom()
    where = each_database_url or str(tmp_path)
    spenders = PROCESSES if each_database_url else 1
    for cycle in range(KILLS):
        processes = [await spender(where, f"{cycle}-{n}") for n in range(spenders)]
        promised = await asyncio.gather(
            *(kill_after(process, chance.randrange(1, 400)) for process in processes)
        )
        database = await open_database(tmp_path, each_database_url, SystemClock())
        await all_ended(database)

        for words in [words for said in promised for words in said]:
            assert await database.read(kept, words), words
        result = await database.read(audit)
        account = await database.read(account_by_name, "acme")
        await database.close()
        assert result.findings == ()
        assert account is not None
        assert account.held == 0
