"""Time for which hostile bodies block the event loop, and latency of honest calls beside them.

    python -m tests.bench.hostile_bodies [--only WORD…] [--seconds 20] [--rounds 3]

Each body of `tests.stand.hostile_bodies` is sent by itself, while another client asks for `/livez`
every few milliseconds: the slowest of these answers is how long the loop was held. Other programs
hold it, too, but not each time: the least of some rounds counts. Then honest calls are made with
and without one hostile body a second beside them. Needs gcc.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from services.common.addresses import split_address
from tests.bench.figures import Figure, conclude
from tests.bench.overload import Callers
from tests.bench.processes import MODEL, MeasuredGateway, asking, bench_configuration, running
from tests.bench.rig import MOCK_PORT, Rig
from tests.stand.hostile_bodies import ACCEPTED, REFUSED

HELD_MS_MAX = 50.0
SLOWER_MAX = 2.0
PAUSE_S = 0.003
ANSWER_S = 120.0
HONEST_PER_S = 20


class Probe(threading.Thread):
    """A client that asks whether the process is alive, again and again."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._ended = threading.Event()
        self.slowest_s = 0.0
        """The slowest answer so far."""

    def run(self) -> None:
        """Ask until the end, and once more after it."""
        with socket.create_connection(self._address) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._ended.wait(PAUSE_S):
                began = time.perf_counter()
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                if not connection.recv(4096):
                    raise ConnectionError("the gateway has closed the connection")
                self.slowest_s = max(self.slowest_s, time.perf_counter() - began)

    def end(self) -> float:
        """Return the slowest answer, the one in flight included."""
        self._ended.set()
        self.join()
        return self.slowest_s


def send(address: tuple[str, int], key: str, body: bytes) -> int:
    """The status of a request with this body."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(address, ANSWER_S) as connection:
        with suppress(ConnectionError):  # It may be refused before it is sent.
            connection.sendall(head.encode() + body)
        return int(connection.recv(64).split()[1])


def held_ms(gateway: MeasuredGateway, body: bytes, rounds: int) -> float:
    """Time for which a body blocks the event loop."""
    address = _address(gateway)
    least = ANSWER_S
    for _ in range(rounds):
        probe = Probe(address)
        probe.start()
        status = send(address, gateway.key, body)
        least = min(least, probe.end())
        assert status in {200, 400}, status
        if least * 1000 <= HELD_MS_MAX:
            break
    return least * 1000


def names(words: Sequence[str]) -> Sequence[str]:
    """The bodies that have one of the words in their names; all without words."""
    every = (*REFUSED, *ACCEPTED)
    return [name for name in every if not words or any(word in name for word in words)]


def body_of(name: str) -> bytes:
    """The body of that name, for a model of the gateway."""
    body = (REFUSED.get(name) or ACCEPTED[name])()
    return body.replace(b'"model":"m"', b'"model":"%b"' % MODEL.encode(), 1)


async def beside(gateway: MeasuredGateway, sent: Sequence[str], ended: asyncio.Event) -> None:
    """Send one of the bodies a second, in turn."""
    loop = asyncio.get_running_loop()
    for number, name in enumerate(itertools.cycle(sent)):
        body = await asyncio.to_thread(body_of, name)
        begun = loop.time()
        await asyncio.to_thread(send, _address(gateway), gateway.key, body)
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), max(0.0, begun + 1 - loop.time()))
        if ended.is_set():
            print(f"hostile bodies sent: {number + 1}")
            return


async def measure(directory: Path, options: argparse.Namespace) -> Sequence[Figure]:
    """Runs all measurements, and returns the figures."""
    rig = Rig(directory)
    config = bench_configuration(f"http://127.0.0.1:{MOCK_PORT}/v1")
    asked = directory / "body.json"
    asked.write_text(json.dumps(asking()))
    named = names(options.only)
    figures: list[Figure] = []
    with rig.provider("-n", 20, "-d", 10_000):
        async with running(directory, config, "single") as gateway:
            for name in named:
                value = await asyncio.to_thread(held_ms, gateway, body_of(name), options.rounds)
                figures.append(Figure(f"the loop is held: {name}", value, "ms", HELD_MS_MAX))
            callers = Callers(directory / "gwload", asked, gateway)
            few = ("-c", 200, "-r", HONEST_PER_S, "-t", options.seconds + 2, "-w", 2)
            alone = await callers.ask(*few)
            ended = asyncio.Event()
            sending = asyncio.create_task(beside(gateway, named, ended))
            amid = await callers.ask(*few)
            ended.set()
            await sending
    print(f"honest calls, p99: alone {alone.p99_ms:.0f} ms, beside them {amid.p99_ms:.0f} ms")
    figures += [
        Figure("honest calls, p99 of theirs alone", amid.p99_ms / alone.p99_ms, "x", SLOWER_MAX),
        Figure("honest calls that failed", alone.failed + amid.failed, "", 0),
    ]
    return figures


def _address(gateway: MeasuredGateway) -> tuple[str, int]:
    return split_address(gateway.url.split("/")[2])


async def main() -> int:
    """Measures, and returns the exit code."""
    parser = argparse.ArgumentParser(description="How long do hostile bodies hold the loop?")
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-hostile-") as directory:
        return conclude(await measure(Path(directory), options))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
