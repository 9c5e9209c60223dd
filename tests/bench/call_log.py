"""CPU time of a row of the call log: made and written to SQLite by threads.

    python -m tests.bench.call_log [--rows 20000]

IDs are as those of the gateway. First the calls have no labels, as those of the other benches, and
then each has one of 500 end users and two tags.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import getrandbits

from services.call_log.call_queue import row_of
from services.domain.usage import Usage
from services.storage.call_rows import CallRow
from services.storage.call_store import CallBatch
from services.storage.sqlite_calls import SqliteCalls
from services.telemetry.calls import Attempt, CallRecord

BATCHES = (100, 1000)
"""Rows of a batch: those of half a second, at 200 and at 2,000 calls a second."""

START_MS = 1_764_500_000_000


def record_of(number: int, *, labels: bool) -> CallRecord:
    """Return the record of a whole answer."""
    at_s, at_ms = number / 1000, START_MS + number
    random = f"{at_ms << 80 | getrandbits(80):032x}"
    record = CallRecord(request_id=f"req-{random}", method="create", opened_at=at_s)
    record.key_id, record.account, record.model = "key-4f1d2a3b4c5d6e7f", "bench", "bench/openai"
    record.end, record.begun_at, record.ended_at = "stop", at_s + 0.008, at_s + 0.01
    record.attempts = [Attempt("mock", "gpt-x", offset_ms=1)]
    record.channel, record.dialect = "mock", "openai"
    record.settlement, record.charge_nano = "settled", 1000
    record.usage = Usage(prompt_token_count=300, completion_token_count=20, source="provider")
    facts = record.facts
    facts.surface, facts.hold_id, facts.hold_ms = "chat", f"hold-{random}", at_ms
    facts.completion_id, facts.served_model = f"chatcmpl-{random}", "bench/openai"
    if labels:
        facts.end_user, facts.tags = f"user-{number % 500}", {"team": "a", "stage": "b"}
    return record


async def write(rows: Sequence[CallRow], size: int) -> None:
    """Write rows in batches of a size."""
    with tempfile.TemporaryDirectory(prefix="pomogator-call-log-") as directory:
        store = SqliteCalls(Path(directory))
        for begin in range(0, len(rows), size):
            some = rows[begin : begin + size]
            await store.write(CallBatch(writer="w", number=begin + 1, at_ms=START_MS, rows=some))
        await store.close()


def main() -> None:
    """Measure, and print a line for each part."""
    parser = argparse.ArgumentParser(description="What does a row of the call log cost?")
    parser.add_argument("--rows", type=int, default=20_000)
    count = parser.parse_args().rows
    for labels in (False, True):
        kind = "with labels" if labels else "plain"
        records = [record_of(number, labels=labels) for number in range(count)]
        begun = time.process_time()
        rows = [row_of(record, 0.0) for record in records]
        print(f"{kind:12} made                   {_us(begun, count)}")
        for size in BATCHES:
            begun = time.process_time()
            asyncio.run(write(rows, size))
            print(f"{kind:12} written, {size:5} a batch {_us(begun, count)}")


def _us(begun: float, count: int) -> str:
    return f"{(time.process_time() - begun) / count * 1e6:6.1f} µs"


if __name__ == "__main__":
    main()
