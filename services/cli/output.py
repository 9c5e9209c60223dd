"""Money, times and tables as people read and write them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.addresses import split_address
from services.common.money import NANO_PER_USD, exact_usd

USD_MAX = 10**9
COUNT_MAX = 2**53
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
"""Seconds of a unit of time, by its letter."""


CLEARED = object()
"""Value of an option that removes a limit."""

T = TypeVar("T")


class CommandError(Exception):
    """A command failed. The message is for people."""


def say(line: str) -> None:
    """Print a line."""
    print(line)  # noqa: T201  Commands print.


def remark(line: str) -> None:
    """Print a line on stderr, beside the command's output."""
    print(f"pomogator: {line}", file=sys.stderr)  # noqa: T201  Commands print.


def say_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows below their head, in columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


def show_usd(nano: int) -> str:
    """Format an amount in dollars exactly, with at least two decimals."""
    return exact_usd(nano, decimals_min=2)


def show_time(timestamp: Timestamp) -> str:
    """Format a time in UTC, to the second."""
    return datetime.fromtimestamp(timestamp.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_usd(text: str) -> int:
    """Parse dollars to nano-USD. Amounts that would be rounded are refused."""
    try:
        dollars = Decimal(text)
        nano = int(dollars * NANO_PER_USD) if abs(dollars) <= USD_MAX else None
    except (InvalidOperation, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text}: not an amount of dollars") from error
    if nano is None or nano != dollars * NANO_PER_USD:
        raise argparse.ArgumentTypeError(f"{text}: at most {USD_MAX}, at most 9 decimals")
    return nano


def read_count(text: str) -> int:
    """Parse a whole number. The service decides which ones are valid."""
    if not text.isdecimal() or int(text) > COUNT_MAX:
        raise argparse.ArgumentTypeError(f"{text}: not a whole number up to {COUNT_MAX}")
    return int(text)


def or_none(read: Callable[[str], T]) -> Callable[[str], T | object]:
    """Return a parser that reads `none` as `CLEARED`, and anything else with `read`."""

    def read_or_clear(text: str) -> T | object:
        return CLEARED if text == "none" else read(text)

    return read_or_clear


def read_names(text: str) -> list[str]:
    """Parse names that are separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def read_visible(text: str) -> str:
    """Check a text that metadata of gRPC can carry."""
    if not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError(f"{text!r}: only printable ASCII characters")
    return text


def read_address(text: str) -> str:
    """Check `HOST:PORT`, an IPv6 address in brackets."""
    try:
        split_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def read_listener(text: str) -> str:
    """Check `HOST:PORT` or `unix:PATH`. gRPC would take an invalid port for another one."""
    return text if text.startswith("unix:") and text != "unix:" else read_address(text)


def read_duration(text: str) -> Duration:
    """Parse a duration such as `30m`: whole seconds, minutes, hours or days."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in SECONDS else (text, "s")
    if not number.isdecimal() or int(number) > COUNT_MAX // SECONDS[unit]:
        raise argparse.ArgumentTypeError(f"{text}: not a time such as 30m, 24h or 7d")
    return Duration(seconds=int(number) * SECONDS[unit])


def read_time(text: str) -> Timestamp:
    """Parse an ISO 8601 time; without a zone it is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: not a time such as 2026-12-31T23:59Z") from error
    timestamp = Timestamp()
    timestamp.FromDatetime(time if time.tzinfo else time.replace(tzinfo=UTC))
    return timestamp
