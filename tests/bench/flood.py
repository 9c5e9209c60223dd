"""Fair share: calls of other keys while one key offers three times the capacity.

    python -m tests.bench.flood [--others 10] [--seconds 10] [--times 3] [--topology single]

As `tests.bench.overload`, with a second key that asks for a few streams a second: first alone, then
while the first key floods. The bench counts its refused calls, and times the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from services.config import BoundsConfig
from tests.bench.figures import Figure, conclude
from tests.bench.overload import CONNECTIONS_MAX, EVENTS, EVERY_US, WARM_S, Callers, pin
from tests.bench.processes import asking, bench_configuration, paid_key, running
from tests.bench.rig import MOCK_PORT, Rig
from tests.stand.servers import TOPOLOGIES

REFUSED_MAX = 0.02
SLOWER_MAX = 1.2


async def measure(directory: Path, options: argparse.Namespace) -> Sequence[Figure]:
    """Runs both phases, and returns the figures."""
    rig = Rig(directory)
    config = bench_configuration(f"http://127.0.0.1:{MOCK_PORT}/v1")
    body = directory / "body.json"
    body.write_text(json.dumps(asking()))
    window = ("-t", options.seconds + WARM_S, "-w", WARM_S)
    with rig.provider("-n", EVENTS, "-d", EVERY_US):
        async with running(directory, config, options.topology) as gateway:
            pin(gateway)
            flood = Callers(directory / "gwload", body, gateway)
            other = replace(gateway, key=await paid_key(directory / "state"))
            others = Callers(directory / "gwload", body, other)
            few = ("-c", CONNECTIONS_MAX, "-r", options.others, *window)
            alone = await others.ask(*few)
            peak = await flood.ask("-c", BoundsConfig().calls_max_when_late, *window)
            rate = options.times * peak.rps
            many, amid = await asyncio.gather(
                flood.ask("-c", CONNECTIONS_MAX, "-r", rate, *window), others.ask(*few)
            )
    print(f"the flood: {rate:.0f} asked for a second, {many.rps:.0f} whole, {many.shed} refused")
    print(f"others: {amid.ok} whole, {amid.shed} refused; 99 of 100 within {amid.p99_ms:.0f} ms,")
    print(f"alone within {alone.p99_ms:.0f}, at the peak {peak.p99_ms:.0f}")
    return [
        Figure("others, refused", amid.shed / max(1, amid.ok + amid.shed), "x", REFUSED_MAX),
        Figure("others, p99 of theirs alone", amid.p99_ms / alone.p99_ms, "x", SLOWER_MAX),
        Figure("calls that failed otherwise", alone.failed + many.failed + amid.failed, "", 0),
    ]


async def main() -> int:
    """Measures, and returns the exit code."""
    parser = argparse.ArgumentParser(description="What do others notice of one who floods?")
    parser.add_argument("--others", type=float, default=10.0, metavar="CALLS_PER_S")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--times", type=float, default=3.0)
    parser.add_argument("--topology", choices=TOPOLOGIES, default="single")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-flood-") as directory:
        return conclude(await measure(Path(directory), options))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
