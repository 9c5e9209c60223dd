"""Goodput at three times the capacity.

    python -m tests.bench.overload [--streams N] [--seconds 10] [--times 3] [--topology single]

The provider's streams have 100 events, one every 10 ms. First as many callers ask in turn as the
gateway takes however busy it is, by itself or with `[bounds] calls_max`: that is its peak. Then
calls come at three times that rate, whether the earlier ones have been answered or not. Counted are
whole streams a second, how soon the others are told 503, how long those take that are admitted, and
how long afterwards until calls are as fast as before.

Load and provider are programs in C on a core of their own, which they leave idle for the most
part: times are the gateway's, from the moment when a call was due. Needs gcc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from services.config import BoundsConfig
from tests.bench.figures import Figure, conclude
from tests.bench.processes import MeasuredGateway, asking, bench_configuration, running
from tests.bench.rig import GATEWAY_CORE, LOAD_CORE, MOCK_PORT, Quantiles, Rig
from tests.stand.servers import TOPOLOGIES, Topology

EVENTS, EVERY_US = 100, 10_000
WARM_S = 2.0
CONNECTIONS_MAX = 4000
GOODPUT_MIN = 0.9
SHED_MS_MAX = 50.0
SLOWER_MAX = 2.0
RECOVERED_S_MAX = 5.0


class Answers(msgspec.Struct):
    """Report of gwload."""

    ok: int
    err: int
    incomplete: int
    unsent: int
    rps: float
    lat_us: Quantiles
    shed: int
    shed_us: Quantiles
    client_cpu_s: float

    @property
    def p99_ms(self) -> float:
        """Durations of the answered calls."""
        return self.lat_us.p99 / 1000

    @property
    def failed(self) -> int:
        """Calls that were neither answered in full nor refused with Retry-After."""
        return self.err - self.shed + self.incomplete + self.unsent


@dataclass(frozen=True, slots=True)
class Callers:
    """Offer load with gwload."""

    program: Path
    body: Path
    gateway: MeasuredGateway

    async def ask(self, *options: object) -> Answers:
        """Outcomes of the calls."""
        url = urlsplit(self.gateway.url)
        command = ["taskset", "-c", LOAD_CORE, self.program, "-s", "-b", self.body]
        command += ["-u", url.netloc, "-P", url.path]
        command += ["-H", f"Authorization: Bearer {self.gateway.key}", *options]
        process = await asyncio.create_subprocess_exec(
            *map(str, command), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return msgspec.json.decode(out, type=Answers)


def pin(gateway: MeasuredGateway) -> None:
    """Pins the gateway to one core, and everything else to the others."""
    for server in gateway.servers.values():
        for task in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {int(GATEWAY_CORE)})


async def recovered_s(callers: Callers, usual_us: float) -> float:
    """Time until a call is as fast as before the overload, without its own duration."""
    ended = time.monotonic()
    while True:
        one = await callers.ask("-c", 1, "-n", 1)
        if one.ok and one.lat_us.p50 <= usual_us * SLOWER_MAX:
            return max(0.0, time.monotonic() - ended - EVENTS * EVERY_US / 1e6)


async def measure(directory: Path, options: argparse.Namespace) -> Sequence[Figure]:
    """Runs all phases, and returns the figures."""
    rig = Rig(directory)
    topology: Topology = options.topology
    more = f"[bounds]\ncalls_max = {options.streams}\n" if options.streams else ""
    callers_max = options.streams or BoundsConfig().calls_max_when_late
    config = bench_configuration(f"http://127.0.0.1:{MOCK_PORT}/v1", more=more)
    body = directory / "body.json"
    body.write_text(json.dumps(asking()))
    window = ("-t", options.seconds + WARM_S, "-w", WARM_S)
    with rig.provider("-n", EVENTS, "-d", EVERY_US):
        async with running(directory, config, topology) as gateway:
            pin(gateway)
            callers = Callers(directory / "gwload", body, gateway)
            peak = await callers.ask("-c", callers_max, *window)
            rate = options.times * peak.rps
            over = await callers.ask("-c", CONNECTIONS_MAX, "-r", rate, *window)
            recovered = await recovered_s(callers, peak.lat_us.p50)
    print(f"peak: {peak.rps:.0f} streams a second, 99 of 100 within {peak.p99_ms:.0f} ms")
    print(f"overload: {rate:.0f} asked for a second, {over.rps:.0f} whole, {over.shed} told to")
    print(f"come back (half of them within {over.shed_us.p50 / 1000:.1f} ms); the load's own CPU:")
    print(f"{over.client_cpu_s / (options.seconds + WARM_S):.0%} of a core")
    return [
        Figure("goodput, of the peak's", over.rps / peak.rps, "x", GOODPUT_MIN, at_least=True),
        Figure("told to come back, p99", over.shed_us.p99 / 1000, "ms", SHED_MS_MAX),
        Figure("admitted, p99 of the peak's", over.p99_ms / peak.p99_ms, "x", SLOWER_MAX),
        Figure("recovered after", recovered, "s", RECOVERED_S_MAX),
        Figure("calls that failed otherwise", peak.failed + over.failed, "", 0),
    ]


async def main() -> int:
    """Measures, and returns the exit code."""
    parser = argparse.ArgumentParser(description="What is left of the throughput in overload?")
    parser.add_argument("--streams", type=int, default=0, metavar="N")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--times", type=float, default=3.0)
    parser.add_argument("--topology", choices=TOPOLOGIES, default="single")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-overload-") as directory:
        return conclude(await measure(Path(directory), options))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
