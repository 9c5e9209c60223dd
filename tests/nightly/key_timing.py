"""Measures whether the time of a look-up depends on how nearly a key was guessed.

    python -m tests.nightly.key_timing [--tries 10000] [--bound 0.05]

Guesses of each kind take turns, so that whatever else the machine does meets all alike, and their
medians are compared. What is measured is `Keyring.authenticate` on a SQLite of its own: through
the whole gateway there is more noise, and soon an end of it, since edges slow down who guesses.
Where medians are too far apart, all is measured again, `ROUNDS` times at most. Noise does not
stay; a leak does, and ends it with status 1.

How long a right key takes is not compared: that it is right is what the answer says.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from services.accounts.key_maker import KeyMaker
from services.admission.keyring import Keyring
from services.clock import SystemClock, system_chance
from services.common.key_format import (
    CHECKSUM_CHARS,
    KEY_CHARS,
    PREFIX,
    SHOWN_CHARS,
    checksum,
    new_secret,
)
from services.errors import Failure
from services.storage.pepper import Pepper
from services.storage.sqlite import SqliteDatabase

KEYS = 1_000
"""The number of characters to guess."""

ROUNDS = 3

KINDS: Mapping[str, int] = {
    "nothing": len(PREFIX),
    "as much as is shown": SHOWN_CHARS,
    "all but four characters": KEY_CHARS - CHECKSUM_CHARS - 4,
}
"""The lengths of the correct prefix of guesses."""

Attempt: TypeAlias = Callable[[str], Awaitable[object]]
Medians: TypeAlias = Mapping[str, float]


def guess(secret: str, right: int) -> str:
    """A well-formed key that shares this many first characters with a key."""
    body = (secret[:right] + new_secret()[right:])[len(PREFIX) : -CHECKSUM_CHARS]
    return f"{PREFIX}{body}{checksum(body)}"


async def measure(
    attempt: Attempt, secrets: Sequence[str], tries: int, now: Callable[[], int]
) -> Medians:
    """The median times of attempts by the correct prefix, in the units of `now`."""
    times: Mapping[str, list[int]] = {kind: [] for kind in KINDS}
    for number in range(tries):
        secret = secrets[number % len(secrets)]
        for kind in random.sample(list(KINDS), len(KINDS)):
            guessed = guess(secret, KINDS[kind])
            begun = now()
            await attempt(guessed)
            times[kind].append(now() - begun)
    return {kind: statistics.median(taken) for kind, taken in times.items()}


def spread(medians: Medians) -> float:
    """The distance of the medians, as a fraction of the smallest."""
    return max(medians.values()) / min(medians.values()) - 1


async def leaks(measured: Callable[[], Awaitable[Medians]], bound: float) -> bool:
    """Whether medians are farther apart than the bound in every measurement."""
    for _ in range(ROUNDS):
        medians = await measured()
        for kind, median in medians.items():
            sys.stdout.write(f"{kind:24} {median / 1000:8.1f} us\n")
        sys.stdout.write(f"{'apart':24} {spread(medians):8.1%}\n")
        if spread(medians) <= bound:
            return False
    return True


async def run(state: Path, tries: int, bound: float) -> bool:
    """Whether the look-up of keys in a new state leaks. Prints what it finds."""
    clock, pepper = SystemClock(), Pepper(b"as secret as all the others")
    database = await SqliteDatabase.open(state, clock)
    try:
        maker = KeyMaker(database, pepper, clock)
        made = await asyncio.gather(*(maker.make("acme") for _ in range(KEYS)))
        ring = Keyring(database, pepper, clock, system_chance())

        async def attempt(guessed: str) -> None:
            with suppress(Failure):
                await ring.authenticate(f"Bearer {guessed}")

        secrets = [secret for _, secret in made]
        return await leaks(lambda: measure(attempt, secrets, tries, time.perf_counter_ns), bound)
    finally:
        await database.close()


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="key_timing")
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--bound", type=float, default=0.05)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-keys-") as directory:
        return int(asyncio.run(run(Path(directory), arguments.tries, arguments.bound)))


if __name__ == "__main__":
    sys.exit(main())
