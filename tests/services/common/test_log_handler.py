from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from services.common.log_handler import BUFFER_BYTES_MAX, NonBlockingHandler

LONG = "x" * 1000


class Pipe:
    """A pipe as small as there is, and who reads it."""

    def __init__(self) -> None:
        self.end, self.begin = os.pipe()
        fcntl.fcntl(self.begin, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.end, False)

    def read(self) -> str:
        """What is in it."""
        try:
            return os.read(self.end, 2**20).decode()
        except BlockingIOError:
            return ""

    async def read_lines(self, count: int) -> list[str]:
        """So many lines, which take as many turns of the loop as they like."""
        text = ""
        while text.count("\n") < count:
            text += self.read()
            await asyncio.sleep(0.001)
        return text.splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Where the lines go."""
    pipe = Pipe()
    yield pipe
    os.close(pipe.end)
    os.close(pipe.begin)


@pytest.fixture
def log(pipe: Pipe) -> Iterator[logging.Logger]:
    """A log that nobody else has."""
    log, handler = logging.getLogger("tests.alone"), NonBlockingHandler(pipe.begin)
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    yield log
    log.removeHandler(handler)
    handler.close()


async def test_the_lines_of_a_turn_are_one_write(log: logging.Logger, pipe: Pipe) -> None:
    """In their order, and before anything that happens in the next turn."""
    log.info("a")
    log.info("b")
    assert pipe.read() == ""

    await asyncio.sleep(0)
    assert pipe.read() == "a\nb\n"

    log.info("c")
    await asyncio.sleep(0)
    assert pipe.read() == "c\n"


async def test_a_warning_does_not_wait(log: logging.Logger, pipe: Pipe) -> None:
    """It may be the last thing that a process says; what was said before it comes before it."""
    log.info("a")
    log.warning("b")
    assert pipe.read() == "a\nb\n"

    log.info("c")
    await asyncio.sleep(0)

    assert pipe.read() == "c\n"


def test_where_no_loop_runs_nothing_waits(log: logging.Logger, pipe: Pipe) -> None:
    """As in the command line's other commands, and in threads of libraries."""
    log.info("a")
    assert pipe.read() == "a\n"

    thread = threading.Thread(target=log.info, args=("b",))
    thread.start()
    thread.join()

    assert pipe.read() == "b\n"


async def test_the_last_lines_are_not_lost(log: logging.Logger, pipe: Pipe) -> None:
    """The library flushes all handlers when the process exits: nothing is left for the loop."""
    log.info("a")
    for handler in log.handlers:
        handler.flush()
    assert pipe.read() == "a\n"

    await asyncio.sleep(0)

    assert pipe.read() == ""


async def test_nobody_waits_for_a_reader(log: logging.Logger, pipe: Pipe) -> None:
    """A pipe that is full costs nobody time, and no line: all come once somebody reads again."""
    told = [f"{number} {LONG}" for number in range(100)]
    for line in told:
        log.warning(line)
        await asyncio.sleep(0)

    assert await pipe.read_lines(100) == told


async def test_a_piece_is_whole_lines(log: logging.Logger, pipe: Pipe) -> None:
    """What is in the pipe when the process is killed can be read, line by line."""
    for _ in range(10):
        log.info(LONG)
    await asyncio.sleep(0)

    assert pipe.read() == f"{LONG}\n" * 4


async def test_more_than_fits_is_lost_and_told(log: logging.Logger, pipe: Pipe) -> None:
    """Memory is bounded. The first line after the gap says how many are missing."""
    kept = BUFFER_BYTES_MAX // len(f"{LONG}\n") + 1
    for _ in range(kept + 1000):
        log.info(LONG)
    fcntl.fcntl(pipe.begin, fcntl.F_SETPIPE_SZ, 2**20)
    assert len(await pipe.read_lines(kept)) == kept

    form = logging.Formatter("%(levelname)s %(message)s %(lines)s", defaults={"lines": ""})
    log.handlers[0].setFormatter(form)
    log.info("again")

    assert await pipe.read_lines(2) == ["WARNING log.lost 1000", "INFO again "]


async def test_a_reader_that_is_gone_stops_nobody(log: logging.Logger, pipe: Pipe) -> None:
    """Nobody will ever read it: nothing is kept, and nothing fails."""
    keep = os.dup(pipe.end)
    os.close(pipe.end)
    os.close(keep)
    log.warning("a")
    log.info("b")
    await asyncio.sleep(0)
    pipe.end = os.open(os.devnull, os.O_RDONLY)


def test_the_last_words_wait_a_moment_for_their_reader() -> None:
    """What a slow reader has not taken when the process ends, it still gets."""
    program = """
import logging
from services.common.log_handler import NonBlockingHandler
log = logging.getLogger()
log.addHandler(NonBlockingHandler())
for number in range(1000):
    log.warning("%d %s", number, "x" * 1000)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=True
    )
    lines = ended.stderr.splitlines()
    assert [line.split()[0] for line in lines] == [str(number) for number in range(1000)]
