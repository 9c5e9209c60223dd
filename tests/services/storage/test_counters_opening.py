from __future__ import annotations

import os
import subprocess
import sys

from services.storage.counters import LocalCounters
from services.storage.counters_opening import open_counters
from services.storage.redis import RedisCounters
from tests.stand.clock import FakeClock

WITHOUT_REDIS = """
import asyncio, sys
sys.modules["redis"] = None
from services.clock import SystemClock
from services.storage.counters_opening import open_counters

async def open(url):
    async with open_counters(url, SystemClock()) as counters:
        print(type(counters).__name__)

asyncio.run(open(""))
asyncio.run(open("redis://127.0.0.1:1"))
"""


async def test_without_a_url_counters_are_local() -> None:
    """Nothing is needed for limits in one process."""
    async with open_counters("", FakeClock()) as counters:
        assert isinstance(counters, LocalCounters)


async def test_with_a_url_counters_are_shared() -> None:
    """A server that is away does not keep the service from starting."""
    async with open_counters("redis://127.0.0.1:1", FakeClock()) as counters:
        assert isinstance(counters, RedisCounters)
        assert not counters.shared


def test_a_missing_extra_is_named() -> None:
    """Without the client library local counters work, and shared ones say what to install."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_REDIS],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert run.stdout == "LocalCounters\n"
    assert "pip install 'pomogator[redis]'" in run.stderr
