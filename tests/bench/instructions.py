"""Instructions of the gateway's process for each request or event, by callgrind.

    python -m tests.bench.instructions [--cells A,B] [--seconds S] [--without-call-log]

Needs valgrind, gcc and taskset. Instructions are counted from user space alone; they are no times.
They repeat to about one percent on an idle machine. On a busy one they vary by five: periodic tasks
run by the clock, and then there are more of them for each call. One call is in flight at a time in
the cells by default. All threads are counted.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.bench.gateway import ours, without_call_log
from tests.bench.rig import CELLS, Gateway, Rig

DEFAULT_CELLS = "json_c1,burst_c1,ant_burst_c1,img_c1"
TOTALS = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


def main() -> None:
    """Measures, and prints one line per cell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", default=DEFAULT_CELLS, help=f"of {', '.join(CELLS)}")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--without-call-log", action="store_true", help="measures a gateway without the log, too"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-bench-") as name:
        folder, gateways = Path(name), ours(Path(name))
        gateways = [one for one in gateways if one.name == "pomogator"]
        if options.without_call_log:
            gateways.append(without_call_log(folder, gateways))
        rig = Rig(folder)
        for gateway in gateways:
            cells: Sequence[str] = options.cells.split(",")
            for cell, count in instructions(rig, folder, gateway, cells, options.seconds):
                unit = "event" if CELLS[cell].streamed else "request"
                figure = f"{count / 1000:10.1f} k instructions per {unit}"
                print(f"{gateway.name:10} {cell:14} {figure}")


def instructions(
    rig: Rig, folder: Path, gateway: Gateway, cells: Sequence[str], seconds: float
) -> Sequence[tuple[str, float]]:
    """Instructions per request or event of each cell, in a gateway with edge and service."""
    counted = f"valgrind --tool=callgrind --callgrind-out-file={folder}/counted {gateway.command}"
    gateway = msgspec.structs.replace(gateway, command=counted)
    found = []
    with rig.running(gateway) as running:
        for cell in cells:
            rig.measure(running, cell, seconds / 2)  # Fills caches and pools.
            _control("--zero", running.pid)
            load = rig.measure(running, cell, seconds).load
            _control("--dump", running.pid)
            units = load.total_events if CELLS[cell].streamed else load.ok
            found.append((cell, _counted(folder) / units))
    return found


def _control(command: str, pid: int) -> None:
    subprocess.run(["callgrind_control", command, str(pid)], check=True, capture_output=True)  # noqa: S607


def _counted(folder: Path) -> int:
    """The total of the newest dump."""
    dump = max(folder.glob("counted.*"), key=lambda path: path.stat().st_mtime_ns)
    match = TOTALS.search(dump.read_text())
    if match is None:
        raise SystemExit(f"{dump} has no total")
    return int(match[1])


if __name__ == "__main__":
    main()
