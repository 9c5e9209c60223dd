"""CPU time of a call in the core alone, without an edge and without gRPC.

    python -m tests.bench.service [--calls N] [--gc default]

Prints for whole answers, and for streams of 200 events in both dialects: CPU time (lowest
of the rounds, so that other work on the machine matters less), how many functions in Python are
called, which other work does not change, and what the garbage collector takes: its share of the
time of all rounds, and a full collection. 32 calls run at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvloop

from services.common import json_logs
from services.common.log_handler import NonBlockingHandler
from services.common.process_settings import freeze_gc
from services.completions.completions import Completions
from services.config import load
from services.domain.call_options import CallOptions
from services.domain.conversation import Message, TextPart
from services.domain.spec import ChatCompletionSpec, CompletionRequest
from services.providers.registry import DIALECTS
from services.serving.server import open_service
from tests.bench.gateway import CONFIG
from tests.bench.rig import MOCK_PORT, Rig

CONCURRENCY = 32
ROUNDS = 5
PROMPT = "You are a careful assistant. Answer in one short paragraph. " * 16

WORK: Mapping[str, tuple[str, bool]] = {
    "json": ("bench/openai", False),
    "burst": ("bench/openai", True),
    "ant_burst": ("bench/anthropic", True),
}
"""Names of work: the model, and whether its answer streams."""

Ask = Callable[[], Awaitable[None]]


async def measure(folder: Path, calls: int, set_gc: Callable[[], None]) -> None:
    """Opens a service, and prints a line for each kind of work."""
    config = folder / "config.toml"
    config.write_text(CONFIG)
    async with open_service(load(config, dialects=DIALECTS), folder / "state") as service:
        key = await service.key_maker.make_first()
        for name, (model, streamed) in WORK.items():
            ask = asking(service.completions, model, key or "", streamed=streamed)
            await together(ask, calls)
            set_gc()
            with collecting() as collected:
                rounds = [await cpu_s(ask, calls) for _ in range(ROUNDS)]
                share = sum(collected) / sum(rounds) / calls
                gc.collect()
            entered = await functions(ask, calls)
            print(
                f"{name:10} {min(rounds) * 1e6:8.1f} us of CPU {entered:8.1f} functions"
                f" {share:7.1%} in gc, {collected[-1] * 1e3:.1f} ms for a full collection"
            )


@contextmanager
def collecting() -> Iterator[Sequence[float]]:
    """Duration of each garbage collection within the context, in seconds."""
    times: list[float] = []

    def note(phase: str, _: Mapping[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            times.append(now)
        else:
            times[-1] = now - times[-1]

    gc.callbacks.append(note)
    try:
        yield times
    finally:
        gc.callbacks.remove(note)


def asking(core: Completions, model: str, key: str, *, streamed: bool) -> Ask:
    """Function that makes one call, and reads all of its answer."""
    message = Message(role="user", content=[TextPart(text=PROMPT)])
    spec = ChatCompletionSpec(model=model, messages=[message], max_tokens=256, temperature=0.5)
    request = CompletionRequest(spec=spec)

    options = CallOptions(request_id="req-1", key=key, deadline_s=600.0)

    async def create() -> None:
        await core.whole(request, options, {})

    async def stream() -> None:
        async for _ in core.stream(request, options, {}):
            pass

    return stream if streamed else create


async def together(ask: Ask, calls: int) -> None:
    """Makes a number of calls, `CONCURRENCY` at a time."""
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await ask()

    await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))


async def cpu_s(ask: Ask, calls: int) -> float:
    """Seconds of this process's CPU for a call, the database's thread included."""
    begun = time.process_time()
    await together(ask, calls)
    return (time.process_time() - begun) / calls


async def functions(ask: Ask, calls: int) -> float:
    """Functions in Python that are entered, or entered again, for a call on the event loop."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        await together(ask, calls)
    finally:
        sys.setprofile(None)
    return count / calls


@contextmanager
def provider(folder: Path) -> Iterator[None]:
    """The mock, which answers at once."""
    Rig(folder)  # Builds it.
    process = subprocess.Popen(
        [folder / "mockup", "-p", str(MOCK_PORT), "-d", "0"], stderr=subprocess.DEVNULL
    )
    time.sleep(0.3)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--gc", choices=("ours", "default"), default="ours")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-bench-") as name:
        folder = Path(name)
        with provider(folder), (folder / "log").open("w") as out:
            json_logs.configure(NonBlockingHandler(out.fileno()))
            set_gc = freeze_gc if options.gc == "ours" else lambda: None
            uvloop.run(measure(folder, options.calls, set_gc))


if __name__ == "__main__":
    main()
