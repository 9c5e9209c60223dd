"""What is left of the throughput when three times as much is asked for as can be done.

    python -m tests.bench.overload [--streams 150] [--seconds 10] [--times 3]

The provider's streams have 100 events, one every 10 ms. First `--streams` callers ask in turn,
which are as many as the gateway takes at a time: that is its peak. Then calls come at three
times that rate, whether the earlier ones have been answered or not. Counted are whole streams a
second, how soon the others are told 503, how long those take that are admitted, and how long
afterwards until calls are as fast as before. Needs gcc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from tests.bench.figures import Figure, conclude, quantile
from tests.bench.rig import MOCK_PORT, Rig
from tests.bench.stage import Stage, asking, configuration, running

EVENTS, EVERY_US = 100, 10_000
GOODPUT_MIN = 0.9
SHED_MS_MAX = 50.0
SLOWER_MAX = 2.0
RECOVERED_S_MAX = 5.0


@dataclass(slots=True)
class Answers:
    """Milliseconds, by what became of the calls."""

    whole: list[float] = field(default_factory=list)
    shed: list[float] = field(default_factory=list)
    failed: int = 0


class Callers:
    """Ask over as many connections as there are calls at a time, and use them again."""

    def __init__(self, stage: Stage) -> None:
        url = urlsplit(stage.url)
        body = json.dumps(asking())
        head = f"POST {url.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stage.key}\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        self._address = url.hostname, url.port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.answers = Answers()

    async def call(self) -> float:
        """One call; how long it took."""
        began = time.monotonic()
        line = self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        reader, writer = line
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        streams = head.startswith(b"HTTP/1.1 200")
        if streams:
            last = b""
            while not last.endswith(b"[DONE]\n\n\r\n0\r\n\r\n"):
                last = last[-32:] + await reader.read(65536)
                if reader.at_eof():
                    break
        else:
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
        took_ms = (time.monotonic() - began) * 1000
        if head.startswith(b"HTTP/1.1 503"):
            self.answers.shed.append(took_ms)
        elif streams and not reader.at_eof():
            self.answers.whole.append(took_ms)
        else:
            self.answers.failed += 1
        self._idle.append(line)
        return took_ms

    def take(self) -> Answers:
        """What became of the calls since the last time."""
        taken, self.answers = self.answers, Answers()
        return taken

    def close(self) -> None:
        """Ends all connections."""
        for _, writer in self._idle:
            writer.transport.abort()


async def in_turn(call: Callable[[], Awaitable[object]], callers: int, seconds: float) -> None:
    """So many callers, each of whom asks again when answered."""
    end = time.monotonic() + seconds

    async def ask() -> None:
        while time.monotonic() < end:
            await call()

    await asyncio.gather(*(ask() for _ in range(callers)))


async def at_a_rate(call: Callable[[], Awaitable[object]], rate: float, seconds: float) -> None:
    """So many calls a second, whatever becomes of the earlier ones."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as calls:
        for number in range(round(rate * seconds)):
            await asyncio.sleep(began + number / rate - loop.time())
            calls.create_task(_done(call))


async def _done(call: Callable[[], Awaitable[object]]) -> None:
    await call()


async def measure(directory: Path, streams: int, seconds: float, times: float) -> Sequence[Figure]:
    """All that is said above."""
    rig = Rig(directory)
    more = f"[bounds]\nstreams = {streams}\n"
    config = configuration(f"http://127.0.0.1:{MOCK_PORT}/v1", more=more)
    with rig.provider("-n", EVENTS, "-d", EVERY_US):
        async with running(directory, config, "single") as stage:
            callers = Callers(stage)
            await in_turn(callers.call, streams, 2.0)
            callers.take()
            began = time.monotonic()
            await in_turn(callers.call, streams, seconds)
            peak = callers.take()
            peak_rate = len(peak.whole) / (time.monotonic() - began)
            began = time.monotonic()
            await at_a_rate(callers.call, times * peak_rate, seconds)
            over = callers.take()
            over_rate = len(over.whole) / (time.monotonic() - began)
            usual_ms = quantile(peak.whole, 0.5) * SLOWER_MAX
            ended = time.monotonic()
            while await callers.call() > usual_ms or callers.answers.shed:
                callers.take()
            recovered_s = time.monotonic() - ended - EVENTS * EVERY_US / 1e6
            callers.close()
    print(f"peak: {peak_rate:.0f} streams a second, 99 of 100 within {_p99(peak.whole):.0f} ms")
    print(f"overload: {over_rate:.0f} streams a second, {len(over.shed)} calls told to come back")
    return [
        Figure("goodput, of the peak's", over_rate / peak_rate, "x", GOODPUT_MIN, at_least=True),
        Figure("told to come back, p99", _p99(over.shed), "ms", SHED_MS_MAX),
        Figure("admitted, p99 of the peak's", _p99(over.whole) / _p99(peak.whole), "x", SLOWER_MAX),
        Figure("recovered after", max(0.0, recovered_s), "s", RECOVERED_S_MAX),
        Figure("calls that failed otherwise", peak.failed + over.failed, "", 0),
    ]


def _p99(values: Sequence[float]) -> float:
    return quantile(values, 0.99)


async def main() -> int:
    """Measures; an exit code."""
    parser = argparse.ArgumentParser(description="What is left of the throughput in overload?")
    parser.add_argument("--streams", type=int, default=150)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--times", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-overload-") as directory:
        figures = await measure(Path(directory), options.streams, options.seconds, options.times)
    return conclude(figures)


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
