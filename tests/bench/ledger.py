"""CPU time of admission: key check, limits, hold and settlement, in microseconds a request.

    python -m tests.bench.ledger [REQUESTS]

Wall times on a shared machine lie; the CPU time of the process, all threads
included, does not.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from services.accounts.key_maker import KeyMaker
from services.admission.keyring import Keyring
from services.admission.leases import LimitLeases
from services.admission.limits import LimitRules, Subject
from services.clock import SystemClock, system_chance
from services.config import LimitConfig
from services.domain.usage import Usage
from services.metering.holds import HoldTerms
from services.metering.ledger import Ledger
from services.storage.accounts import credit_account
from services.storage.audit import audit
from services.storage.counters import LIMIT_MAX, LocalCounters
from services.storage.pepper import Pepper
from services.storage.sqlite import SqliteDatabase

RULE = LimitConfig(key="*", rpm=LIMIT_MAX, tpm=LIMIT_MAX, concurrency=LIMIT_MAX)
"""Counts everything and refuses nothing."""

CONCURRENCIES = (1, 8, 32, 128)
USAGE = Usage(prompt_token_count=10, completion_token_count=5, source="provider")


async def measure(requests: int, concurrency: int) -> tuple[float, float]:
    """CPU and wall microseconds a request."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as directory:
        database = await SqliteDatabase.open(Path(directory), clock)
        pepper = Pepper(b"sixteen bytes and more")
        _, secret = await KeyMaker(database, pepper, clock).make("acme")
        await database.write(credit_account, "acme", 10**15, "bench", 0)
        keyring = Keyring(database, pepper, clock, system_chance())
        meters = LimitRules([RULE]).meters(Subject(key="key", model="a/b"))
        leases = LimitLeases(LocalCounters(clock), system_chance())
        async with Ledger(database, clock) as ledger:

            async def work() -> None:
                for _ in range(requests // concurrency):
                    caller = await keyring.authenticate(f"Bearer {secret}")
                    lease = await leases.take(meters, tokens=20)
                    terms = HoldTerms(account=caller.account, key_id=caller.key_id, model="a/b")
                    hold = await ledger.reserve(terms, "req-bench", 1_000_000)
                    lease.reconcile(USAGE.total_token_count)
                    lease.release()
                    ledger.settle(hold, 900_000, USAGE)

            cpu, wall = time.process_time(), time.perf_counter()
            await asyncio.gather(*(work() for _ in range(concurrency)))
            await ledger.drain()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        assert not (await database.read(audit)).findings
        await database.close()
    done = requests // concurrency * concurrency
    return cpu / done * 1e6, wall / done * 1e6


def main() -> None:
    """Prints a table."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    print("concurrent   CPU µs/request   wall µs/request")
    for concurrency in CONCURRENCIES:
        cpu, wall = uvloop.run(measure(requests, concurrency))
        print(f"{concurrency:10}   {cpu:14.1f}   {wall:15.1f}")


if __name__ == "__main__":
    main()
