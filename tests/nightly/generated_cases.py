"""Command line of scripts that check generated cases: `[--cases 100000] [--seed N]`.

Those that attack a gateway do so over each transport.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from tests.stand.gateway import Transport

TRANSPORTS: Sequence[Transport] = ("in-process", "tcp")


class Attack(Protocol):
    """What an attack came to."""

    faults: list[str]
    """What no attack may cause, with the case that did."""
    became: Counter[Any]
    """How many cases ended how."""


def over_each_transport(
    attack: Callable[[int, int, Transport], Awaitable[Attack]],
    cases: int,
    seed: int,
) -> Mapping[Any, int]:
    """Share the cases among two transports. Return how many ended how. No fault may be found."""

    async def ended(transport: Transport) -> Attack:
        return await attack(cases // len(TRANSPORTS), seed, transport)

    became: Counter[Any] = Counter()
    for transport in TRANSPORTS:
        run = asyncio.run(ended(transport))
        assert not run.faults, "\n\n".join(run.faults)
        became += run.became
    return became


def run(check_cases: Callable[[int, int], Mapping[Any, int]], description: str | None) -> None:
    """Check a number of cases, with a seed, and print what became of them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")  # noqa: T201
    print(dict(check_cases(arguments.cases, arguments.seed)))  # noqa: T201
