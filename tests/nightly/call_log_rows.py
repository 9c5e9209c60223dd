"""Lists and charts of a call log with ten million rows on PostgreSQL.

    python -m tests.nightly.call_log_rows [--rows N]

Rows of 30 days are generated in a server of its own, with 40 accounts, 120 keys, 12 models and 6
channels. Each read runs once to fill caches, and then nine times. It ends with exit code 1 where
a median is above its target: 50 ms for a page, 100 ms for a chart. Ten million rows take 12 GB.
"""

# ruff: noqa: S608, T201 - statements of constants of this module, and a program that prints
from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import asyncpg

from services.call_log.call_reader import CallLogReader
from services.storage.base import DEFAULTS
from services.storage.call_rows import COLUMNS, CallSelection
from services.storage.call_store import CallBatch
from services.storage.call_sums import (
    BOUNDS_MS,
    DAY_MS,
    FIGURES,
    HOUR_MS,
    KEY,
    MONEY,
    SumsQuery,
)
from services.storage.postgres_calls import PostgresCalls
from services.storage.sum_table import TOKENS
from tests.stand.databases import running_postgres

DAYS = 30
PAGE_MS, CHART_MS = 50.0, 100.0
REPEATS = 9

VALUES: Mapping[str, str] = {
    "at_ms": "at_ms",
    "id": "'call-' || lpad(to_hex(at_ms), 11, '0') || lpad(to_hex(n), 20, '0')",
    "request_id": "'req-' || md5(n::TEXT)",
    "completion_id": "'chatcmpl-' || md5('a' || n)",
    "account": "'account-' || n % 40",
    "key_id": "'key-' || n % 120",
    "surface": "'chat'",
    "streamed": "n % 2",
    "model": "'model-' || n / 40 % 12",
    "served_model": "'model-' || n / 40 % 12",
    "channel": "'channel-' || n / 7 % 6",
    "attempts": """'[["channel","m","",3]]'""",
    "attempt_count": "1",
    "call_end": "CASE WHEN n % 50 = 0 THEN 'refused' ELSE 'stop' END",
    "reason": "CASE WHEN n % 50 = 0 THEN 'RATE_LIMIT_EXCEEDED' ELSE '' END",
    "http_status": "CASE WHEN n % 50 = 0 THEN 429 ELSE 200 END",
    "ttft_ms": "100 + n % 3000",
    "total_ms": "500 + n % 30000",
    "prompt_tokens": "n % 4000",
    "completion_tokens": "n % 700",
    "source": "'provider'",
    "charge": "n % 1000000",
    "cost": "n % 900000",
    "hold": "2000000",
    "hold_id": "'hold-' || n",
    "end_user": "CASE WHEN n % 3 = 0 THEN 'user-' || n % 5000 ELSE '' END",
    "session": "CASE WHEN n % 2 = 0 THEN 'session-' || n / 20 ELSE '' END",
}
"""Columns of a generated row by its number `n` and its time."""


Read: TypeAlias = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Figure:
    """Median time of a read."""

    name: str
    ms: float
    target_ms: float


async def generate(url: str, rows: int, first_day: int) -> None:
    """Generate rows, and their sums."""
    connection = await asyncpg.connect(url)
    numbers = {name for name in COLUMNS if name.endswith("_tokens") or name == "note_count"}
    columns = {name: VALUES.get(name, "0" if name in numbers else "''") for name in COLUMNS}
    for day in range(DAYS):
        each = rows // DAYS
        start_ms = (first_day + day) * DAY_MS
        await connection.execute(
            f"INSERT INTO calls ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
            f" FROM (SELECT n, {start_ms} + (n - {day * each}) * {DAY_MS} / {each} AS at_ms"
            f" FROM generate_series(CAST({day * each} AS BIGINT), {(day + 1) * each - 1}) AS n)"
            " AS numbered"
        )
        for span_ms in (HOUR_MS, DAY_MS):
            for of_all in (False, True):
                await connection.execute(_sums(span_ms, start_ms, of_all=of_all))
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


def _sums(span_ms: int, start_ms: int, *, of_all: bool) -> str:
    figures = ["count(*)", "count(*) FILTER (WHERE reason <> '')"]
    figures += [f"sum({name})" for name in (*TOKENS, *MONEY)]
    bounds = [-1, *BOUNDS_MS, 2**60]
    for column in ("ttft_ms", "total_ms"):
        figures += [
            f"count(*) FILTER (WHERE {column} > {low} AND {column} <= {high})"
            for low, high in pairwise(bounds)
        ]
    names = ", ".join((*KEY, *FIGURES))
    account, key_id = ("CAST('' AS TEXT)",) * 2 if of_all else ("account", "key_id")
    return (
        f"INSERT INTO call_sums ({names}) SELECT {span_ms}, at_ms - at_ms % {span_ms} AS start_ms,"
        f" {account}, {key_id}, model, channel, call_end, {', '.join(figures)} FROM calls"
        f" WHERE at_ms >= {start_ms} AND at_ms < {start_ms + DAY_MS}"
        " GROUP BY 1, 2, 3, 4, 5, 6, 7"
    )


def reads(
    reader: CallLogReader, first_day: int
) -> Mapping[str, tuple[Callable[[], Awaitable[object]], float]]:
    """Return the reads that are measured, with their targets."""
    start_ms, end_ms = first_day * DAY_MS, (first_day + DAYS) * DAY_MS
    middle = start_ms + 10 * DAY_MS, ""

    def page(**names: object) -> Read:
        selection = CallSelection(start_ms=start_ms, end_ms=end_ms, **names)  # type: ignore[arg-type]
        return lambda: reader.page(selection, 101, middle if "session" not in names else None)

    def chart(*dimensions: str, account: str = "") -> Read:
        query = SumsQuery(
            selection=CallSelection(start_ms=start_ms, end_ms=end_ms, account=account),
            span_ms=DAY_MS,
            by_interval=True,
            dimensions=dimensions,
            durations=True,
            limit=5001,
        )
        return lambda: reader.sums(query)

    return {
        "page of all": (page(), PAGE_MS),
        "page of an account": (page(account="account-7"), PAGE_MS),
        "page of an account and model": (page(account="account-7", model="model-3"), PAGE_MS),
        "page of a key": (page(key_id="key-9"), PAGE_MS),
        "page of a model": (page(model="model-3"), PAGE_MS),
        "page of a channel": (page(channel="channel-2"), PAGE_MS),
        "page of refused calls": (page(call_end="refused"), PAGE_MS),
        "page of a session": (page(session="session-40"), PAGE_MS),
        "page of dear calls": (page(account="account-7", min_charge=999_000), PAGE_MS),
        "page of all dear calls": (page(min_charge=999_000), PAGE_MS),
        "page of very dear calls": (page(min_charge=999_990), PAGE_MS),
        "page of no call": (page(account="account-7", model="model-99"), PAGE_MS),
        "chart of all": (chart(), CHART_MS),
        "chart of all by model": (chart("model"), CHART_MS),
        "chart of an account by model": (chart("model", account="account-7"), CHART_MS),
        "chart of an account by key": (chart("key_id", account="account-7"), CHART_MS),
    }


async def measure(url: str, rows: int) -> list[Figure]:
    """Generate rows, and measure reads of them."""
    store = PostgresCalls(url, DEFAULTS)
    first_day = int(time.time() * 1000) // DAY_MS - DAYS + 1
    for day in range(DAYS):
        at_ms = (first_day + day) * DAY_MS
        await store.write(CallBatch(writer="script", number=day + 1, at_ms=at_ms, rows=[]))
    await generate(url, rows, first_day)

    async def nothing() -> None:
        return

    figures = []
    for name, (read, target_ms) in reads(CallLogReader(store, nothing), first_day).items():
        await read()
        times = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            await read()
            times.append((time.perf_counter() - begun) * 1000)
        figures.append(Figure(name, statistics.median(times), target_ms))
    await store.close()
    return figures


def main() -> None:
    """Measure, and print a line for each read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    with running_postgres() as url:
        figures = asyncio.run(measure(url, options.rows))
    for figure in figures:
        verdict = "PASS" if figure.ms < figure.target_ms else "MISS"
        print(f"{figure.name:30} {figure.ms:8.1f} ms of {figure.target_ms:.0f}  {verdict}")
    sys.exit(any(figure.ms >= figure.target_ms for figure in figures))


if __name__ == "__main__":
    main()
