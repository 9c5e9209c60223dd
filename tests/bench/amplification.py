"""Retry amplification: requests to providers while all of them fail.

    python -m tests.bench.amplification [--seconds 20] [--callers 20]

Official SDKs, which retry by themselves, call without a pause; both providers answer every request
with 503. The bench counts requests to the gateway and to providers. Retries are allowed for a fifth
of the requests and for ten more a second, of which a second's are there from the beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from openai import APIStatusError, AsyncOpenAI

from services.routing.budget import RETRIES_PER_S
from tests.bench.figures import Figure, conclude
from tests.bench.processes import MODEL, bench_configuration, running
from tests.stand.upstream import FakeUpstream, Script, json_answer

AMPLIFICATION_MAX = 1.2
DOWN: Script = [json_answer({"error": {"message": "down"}}, 503)]


async def call_until(client: AsyncOpenAI, end: float) -> int:
    """Calls without a pause. Returns the number of failures, which all calls must be."""
    failed = 0
    while time.monotonic() < end:
        try:
            await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=9
            )
        except APIStatusError:
            failed += 1
    return failed


async def measure(directory: Path, seconds: float, callers: int) -> Figure:
    """Requests to providers for each one to the gateway, beyond those that are free."""
    async with FakeUpstream() as first, FakeUpstream() as second:
        first.play(DOWN)
        second.play(DOWN)
        config = bench_configuration(first.url, second.url)
        async with running(directory, config, "single") as gateway:
            base_url = gateway.url.removesuffix("/chat/completions")
            async with AsyncOpenAI(api_key=gateway.key, base_url=base_url) as client:
                began = time.monotonic()
                callings = [call_until(client, began + seconds) for _ in range(callers)]
                failed = sum(await asyncio.gather(*callings))
                took_s = time.monotonic() - began
            (server,) = gateway.servers.values()
            ours = sum(line["event"] == "request.ended" for line in server.lines)
    theirs = len(first.requests) + len(second.requests)
    print(f"{took_s:.0f} s: {failed} calls of SDKs, {ours} requests to us, {theirs} to providers")
    beyond = max(0.0, theirs - RETRIES_PER_S * (took_s + 1))
    return Figure("requests to providers for one to us", beyond / ours, "x", AMPLIFICATION_MAX)


async def main() -> int:
    """Measures, and returns the exit code."""
    parser = argparse.ArgumentParser(description="How often are failing providers asked?")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--callers", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-retries-") as directory:
        figure = await measure(Path(directory), options.seconds, options.callers)
    return conclude([figure])


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
