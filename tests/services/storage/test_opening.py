"""Opening of databases and counter stores, and the messages where that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

from services.storage.base import StateError
from services.storage.counters import LocalCounters
from services.storage.opening import COUNTER_STORES, DATABASES, open_counters, open_database
from services.storage.redis import RedisCounters
from services.storage.sqlite import SqliteDatabase
from tests.services.storage.test_counters import COUNTER_STORE_KINDS
from tests.stand.clock import FakeClock
from tests.stand.databases import DATABASE_KINDS

WITHOUT_REDIS = """
import asyncio, sys
sys.modules["redis"] = None
from services.clock import SystemClock
from services.storage.opening import open_counters

async def open(url):
    async with open_counters(url, SystemClock()) as counters:
        print(type(counters).__name__)

asyncio.run(open(""))
asyncio.run(open("redis://127.0.0.1:1"))
"""


async def test_without_a_url_the_database_is_sqlite(tmp_path: Path) -> None:
    """One process needs no database server."""
    database = await open_database(tmp_path, "", FakeClock())

    assert isinstance(database, SqliteDatabase)
    await database.close()


async def test_a_missing_database_driver_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without PostgreSQL's driver the message names the extra to install."""
    monkeypatch.delitem(sys.modules, "services.storage.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    with pytest.raises(StateError, match=r"pip install 'pomogator\[postgres\]'"):
        await open_database(tmp_path, "postgresql://127.0.0.1:1/db", FakeClock())


async def test_an_unknown_scheme_is_refused(tmp_path: Path) -> None:
    """The message names the known schemes, and not the URL, which may hold a password."""
    with pytest.raises(StateError, match=r"database_url: must begin with postgres://") as refused:
        await open_database(tmp_path, "mysql://u:word@h/db", FakeClock())

    assert "word" not in str(refused.value)


async def test_without_a_url_counters_are_local() -> None:
    """Limits in one process need no server."""
    async with open_counters("", FakeClock()) as counters:
        assert isinstance(counters, LocalCounters)


async def test_with_a_url_counters_are_shared() -> None:
    """The service starts although the server does not answer."""
    async with open_counters("redis://127.0.0.1:1", FakeClock()) as counters:
        assert isinstance(counters, RedisCounters)
        assert not counters.shared


def test_a_missing_counter_store_driver_is_named() -> None:
    """Without Redis' client local counters work, and the message names the extra to install."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_REDIS],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert run.stdout == "LocalCounters\n"
    assert "pip install 'pomogator[redis]'" in run.stderr


def test_the_shared_suites_run_on_every_backend() -> None:
    """Each registered backend is one that the suites are parametrised with."""
    assert {backend.module for backend in DATABASES.values()} < set(DATABASE_KINDS)
    assert {backend.module for backend in COUNTER_STORES.values()} < set(COUNTER_STORE_KINDS)


def test_every_extra_exists() -> None:
    """The extra that a message names is one of the distribution."""
    extras = set(metadata("pomogator").get_all("Provides-Extra") or ())
    backends = (*DATABASES.values(), *COUNTER_STORES.values())
    assert {backend.extra for backend in backends} <= extras
