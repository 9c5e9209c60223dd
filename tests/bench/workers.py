"""Throughput and CPU time on all cores with edges in processes of their own (`--workers`).

    python -m tests.bench.workers [--workers 0,1,2] [--rounds N] [--seconds S]

0 is edge and service in one process. The load generator and the provider run on one of the cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import msgspec

from tests.bench.gateway import ours
from tests.bench.rig import Rig

CELLS = ("json_c32", "burst_c32")


def main() -> None:
    """Measures, and prints the best round of each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    best: dict[tuple[str, str], tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="pomogator-bench-") as name:
        folder = Path(name)
        rig = Rig(folder)
        alone = next(one for one in ours(folder) if one.name == "pomogator")
        for _ in range(options.rounds):
            for workers in options.workers.split(","):
                gateway = msgspec.structs.replace(
                    alone,
                    command=f"{alone.command} --workers {workers}",
                    cores=",".join(map(str, range(os.cpu_count() or 1))),
                )
                with rig.running(gateway) as running:
                    for cell in CELLS:
                        result = rig.measure(running, cell, options.seconds)
                        figures = result.load.ok / options.seconds, result.cpu_us
                        best[workers, cell] = max(best.get((workers, cell), (0.0, 0.0)), figures)
    print("| workers | cell | calls per second | CPU µs per request or chunk |\n|--:|---|--:|--:|")
    for (workers, cell), (rate, cpu_us) in best.items():
        print(f"| {workers} | `{cell}` | {rate:,.0f} | {cpu_us:,.1f} |")


if __name__ == "__main__":
    main()
