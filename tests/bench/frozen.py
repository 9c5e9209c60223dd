"""Time until an edge detects a dead or frozen service.

    python -m tests.bench.frozen [--rounds 5]

An edge stands in front of two services (on one PostgreSQL), which take calls in turn. Streams
run on both. In every round the first service is frozen (SIGSTOP) and continued, and then killed
and started again: the bench times the end of its streams, which have an error. From then on all
calls must be answered, by the other service.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from tests.bench.figures import Figure, conclude
from tests.bench.fleet import Fleet, fleet
from tests.bench.processes import asking, client
from tests.stand.upstream import SSE_HEAD, STALL, FakeUpstream, Request, Script, json_answer, sse

STREAMS = 8
CALLS_AFTER = 100
KILLED_S_MAX, FROZEN_S_MAX = 0.1, 5.0
PATIENCE_S = 30.0
FIRST = sse({"id": "1", "choices": [{"index": 0, "delta": {"content": "word"}}]})
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}


def play(request: Request) -> Script:
    """Provider whose streams begin and are then silent; whole answers come at once."""
    if request.json().get("stream"):
        return [SSE_HEAD + FIRST, STALL]
    return [json_answer({"id": "1", "choices": [CHOICE], "usage": USAGE})]


async def noticed(
    gateways: Fleet, http: aiohttp.ClientSession, number: signal.Signals
) -> tuple[float, int]:
    """Seconds until half of the streams have ended, and how many calls failed after that."""
    answers = [await http.post(gateways.url, json=asking()) for _ in range(STREAMS)]
    for answer in answers:
        await answer.content.readuntil(b"word")
    ends = [asyncio.ensure_future(answer.read()) for answer in answers]
    service = gateways.services[0]
    began = time.monotonic()
    service.send_signal(number)
    async with asyncio.timeout(PATIENCE_S):
        for _, end in zip(range(STREAMS // 2), asyncio.as_completed(ends), strict=False):
            assert b'"error"' in await end
    took_s = time.monotonic() - began
    failed = 0
    for _ in range(CALLS_AFTER):
        async with http.post(gateways.url, json=asking(stream=False)) as answer:
            failed += answer.status != 200
    for answer, end in zip(answers, ends, strict=True):
        end.cancel()
        answer.close()
    await asyncio.gather(*ends, return_exceptions=True)
    return took_s, failed


async def measure(directory: Path, rounds: int) -> Sequence[Figure]:
    """The worst values of a number of rounds."""
    frozen_s, killed_s, failed = 0.0, 0.0, 0
    async with FakeUpstream() as upstream:
        upstream.play(play)
        async with fleet(directory, upstream.url) as gateways, client(gateways.key) as http:
            victim = gateways.services[0]
            for _ in range(rounds):
                await _both_answer(gateways, http, upstream)
                took_s, missed = await noticed(gateways, http, signal.SIGSTOP)
                frozen_s, failed = max(frozen_s, took_s), failed + missed
                victim.send_signal(signal.SIGCONT)
                await _both_answer(gateways, http, upstream)
                took_s, missed = await noticed(gateways, http, signal.SIGKILL)
                killed_s, failed = max(killed_s, took_s), failed + missed
                await victim.stop()
                await victim.start()
    return [
        Figure("frozen, noticed after", frozen_s, "s", FROZEN_S_MAX),
        Figure("killed, noticed after", killed_s, "s", KILLED_S_MAX),
        Figure("calls that failed after that", failed, "", 0),
    ]


async def _both_answer(
    gateways: Fleet, http: aiohttp.ClientSession, upstream: FakeUpstream
) -> None:
    """Returns once both services take calls: each has its own connections to the provider."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            before = len(upstream.requests)
            for _ in range(STREAMS):
                async with http.post(gateways.url, json=asking(stream=False)) as answer:
                    await answer.read()
            new = [request.connection for request in upstream.requests[before:]]
            if len(set(new)) > 1 and new.count(new[0]) == STREAMS // 2:
                return
            await asyncio.sleep(0.1)


async def main() -> int:
    """Measures, and returns the exit code."""
    parser = argparse.ArgumentParser(description="How soon is a dead service noticed?")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-frozen-") as directory:
        return conclude(await measure(Path(directory), options.rounds))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
