"""Command line of scripts that check generated cases: `[--cases 100000] [--seed N]`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any


def run(check_cases: Callable[[int, int], Mapping[Any, int]], description: str | None) -> None:
    """Check a number of cases, with a seed, and print what became of them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")  # noqa: T201
    print(dict(check_cases(arguments.cases, arguments.seed)))  # noqa: T201
