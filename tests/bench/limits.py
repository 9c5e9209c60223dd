"""CPU time of the limits of a call: `python tests/bench/limits.py [redis://…]`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from services.admission.leases import LimitLeases
from services.admission.limits import KeyLimits, LimitRules, Subject
from services.clock import SystemClock, system_chance
from services.config.limits import LimitConfig
from services.storage.counters import CounterStore, LocalCounters
from services.storage.redis import RedisCounters

CALLS = 20_000
CONCURRENT = 32
PLENTY = 100_000_000

BOTH = [
    LimitConfig(key="*", model="*", rpm=PLENTY, tpm=PLENTY, concurrency=PLENTY),
    LimitConfig(channel="*", rpm=PLENTY, tpm=PLENTY, concurrency=PLENTY),
]
OWN = KeyLimits(rpm=PLENTY, tpm=PLENTY, concurrency=PLENTY)


async def measure(
    name: str, counters: CounterStore, rules: list[LimitConfig], own: KeyLimits
) -> None:
    """Prints the CPU time of a call with limits on the call and on its attempt."""
    compiled, leases = LimitRules(rules), LimitLeases(counters, system_chance())
    calls = [
        (
            compiled.meters(Subject(key=f"key-{index}", model="m", own=own)),
            compiled.meters(Subject(key=f"key-{index}", model="m", channel="c")),
        )
        for index in range(1000)
    ]

    async def run(first: int) -> None:
        for number in range(first, CALLS, CONCURRENT):
            whole, attempt = calls[number % len(calls)]
            with await leases.take(whole, 1000) as lease, await leases.take(attempt, 1000) as inner:
                lease.reconcile(700)
                inner.reconcile(700)

    await _print(name, run)


async def _print(name: str, run: Callable[[int], Awaitable[None]]) -> None:
    await asyncio.gather(*(run(index) for index in range(CONCURRENT)))
    began = time.process_time()
    await asyncio.gather(*(run(index) for index in range(CONCURRENT)))
    print(f"{name:44} {(time.process_time() - began) / CALLS * 1e6:7.2f} us CPU a call")


async def main(redis_url: str) -> None:
    """Prints the table."""
    clock = SystemClock()
    await measure("nothing configured", LocalCounters(clock), [], KeyLimits())
    await measure("a key's own requests", LocalCounters(clock), [], KeyLimits(rpm=PLENTY))
    await measure("key x model and channel, 6 meters", LocalCounters(clock), BOTH, KeyLimits())
    await measure("the same and the key's own, 9 meters", LocalCounters(clock), BOTH, OWN)
    if redis_url:
        async with RedisCounters(redis_url, LocalCounters(clock)) as counters:
            await measure("Redis: key x model and channel, 6 meters", counters, BOTH, KeyLimits())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else ""))
