"""CPU time of a request and resident memory over an hour.

    python -m tests.bench.hour [--minutes 60] [--rate 30]

A gateway in one process, with everything on, is asked at a low and steady rate, in streams
and not, for models of all dialects. A line tells of every twelfth of the time: CPU time for a
request, and resident memory. The first one is the warm-up. CPU time is of the gateway's
process alone, and hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

import psutil

from tests.bench.figures import Figure, conclude
from tests.nightly.soak import opened
from tests.stand.providers.unreliable import UnreliableProvider

PARTS = 12
GROWTH_MAX = 1.1
MEMORY_MB_MAX = 16.0


async def measure(directory: Path, seconds: float, rate: float) -> list[Figure]:
    """The last part compared with the second one."""
    chance = random.Random(1)  # noqa: S311 - the same each time
    provider = UnreliableProvider(chance, share=0.0)
    async with opened(directory, provider, "single", chance, leaving=0.0) as (soak, load):
        (gateway,) = soak.servers.values()
        process = psutil.Process(gateway.pid)
        rows = []
        for part in range(PARTS):
            asked, cpu = load.outcomes.asked, _cpu_s(process)
            async with load.connected():
                await load.run(rate, seconds / PARTS)
            cpu_us = (_cpu_s(process) - cpu) / (load.outcomes.asked - asked) * 1e6
            memory_mb = process.memory_info().rss / 2**20
            rows.append((cpu_us, memory_mb))
            minutes = seconds / 60 / PARTS * (part + 1)
            print(f"{minutes:6.1f} min {cpu_us:8.0f} us a request {memory_mb:7.1f} MB", flush=True)
    print(f"calls: {dict(load.outcomes.ends)}")
    failed = load.outcomes.asked - load.outcomes.ends["whole"]
    (first_us, first_mb), (last_us, last_mb) = rows[1], rows[-1]
    return [
        Figure("CPU for a request, last against second part", last_us / first_us, "x", GROWTH_MAX),
        Figure("memory since the second part", last_mb - first_mb, "MB", MEMORY_MB_MAX),
        Figure("calls that failed", failed, "", 0),
    ]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    """Runs with the options of the command line."""
    parser = argparse.ArgumentParser(description="Is a request as cheap after an hour?")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=30.0, help="requests a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-hour-") as directory:
        figures = asyncio.run(measure(Path(directory), options.minutes * 60, options.rate))
    sys.exit(conclude(figures))


if __name__ == "__main__":
    main()
