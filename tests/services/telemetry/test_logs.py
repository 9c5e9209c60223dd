from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections.abc import Iterator

import pytest

from services.telemetry.logs import LinesHandler


class Writes(io.StringIO):
    """A stream that tells its writes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.each: list[str] = []

    def write(self, text: str) -> int:
        """One write."""
        self.each.append(text)
        return len(text)


@pytest.fixture
def writes() -> Writes:
    """Where the lines go."""
    return Writes()


@pytest.fixture
def log(writes: Writes) -> Iterator[logging.Logger]:
    """A log that nobody else has."""
    log, handler = logging.getLogger("tests.alone"), LinesHandler(writes)
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    yield log
    log.removeHandler(handler)
    handler.close()


async def test_the_lines_of_a_turn_are_one_write(log: logging.Logger, writes: Writes) -> None:
    """In their order, and before anything that happens in the next turn."""
    log.info("a")
    log.info("b")
    assert writes.each == []

    await asyncio.sleep(0)
    log.info("c")
    await asyncio.sleep(0)

    assert writes.each == ["a\nb\n", "c\n"]


async def test_a_warning_does_not_wait(log: logging.Logger, writes: Writes) -> None:
    """It may be the last thing that a process says; what was said before it comes before it."""
    log.info("a")
    log.warning("b")
    assert writes.each == ["a\nb\n"]

    log.info("c")
    await asyncio.sleep(0)

    assert writes.each == ["a\nb\n", "c\n"]


def test_where_no_loop_runs_nothing_waits(log: logging.Logger, writes: Writes) -> None:
    """As in the command line's other commands, and in threads of libraries."""
    log.info("a")
    thread = threading.Thread(target=log.info, args=("b",))
    thread.start()
    thread.join()

    assert writes.each == ["a\n", "b\n"]


async def test_the_last_lines_are_not_lost(log: logging.Logger, writes: Writes) -> None:
    """The library flushes all handlers when the process exits: nothing is left for the loop."""
    log.info("a")
    for handler in log.handlers:
        handler.flush()
    assert writes.each == ["a\n"]

    await asyncio.sleep(0)

    assert writes.each == ["a\n"]
