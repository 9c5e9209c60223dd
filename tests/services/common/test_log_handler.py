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
    """A pipe of the smallest size, and its reader."""

    def __init__(self) -> None:
        self.end, self.begin = os.pipe()
        fcntl.fcntl(self.begin, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.end, False)

    def read(self) -> str:
        """Read all that is in the pipe."""
        try:
            return os.read(self.end, 2**20).decode()
        except BlockingIOError:
            return ""

    async def read_lines(self, count: int) -> list[str]:
        """Read this many lines, in any number of loop turns."""
        text = ""
        while text.count("\n") < count:
            text += self.read()
            await asyncio.sleep(0.001)
        return text.splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """The pipe that the handler writes to."""
    pipe = Pipe()
    yield pipe
    os.close(pipe.end)
    os.close(pipe.begin)


@pytest.fixture
def log(pipe: Pipe) -> Iterator[logging.Logger]:
    """A logger of the test alone, with the handler."""
    log, handler = logging.getLogger("tests.alone"), NonBlockingHandler(pipe.begin)
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    yield log
    log.removeHandler(handler)
    handler.close()


async def test_the_lines_of_one_loop_turn_are_one_write(log: logging.Logger, pipe: Pipe) -> None:
    """In their order, and before anything that happens in the next turn."""
    log.info("a")
    log.info("b")
    assert pipe.read() == ""

    await asyncio.sleep(0)
    assert pipe.read() == "a\nb\n"

    log.info("c")
    await asyncio.sleep(0)
    assert pipe.read() == "c\n"


async def test_a_warning_is_written_at_once(log: logging.Logger, pipe: Pipe) -> None:
    """It may be the last line of the process. Earlier lines are written before it."""
    log.info("a")
    log.warning("b")
    assert pipe.read() == "a\nb\n"

    log.info("c")
    await asyncio.sleep(0)

    assert pipe.read() == "c\n"


def test_without_a_loop_lines_are_written_at_once(log: logging.Logger, pipe: Pipe) -> None:
    """As in commands other than `serve`, and in threads of libraries."""
    log.info("a")
    assert pipe.read() == "a\n"

    thread = threading.Thread(target=log.info, args=("b",))
    thread.start()
    thread.join()

    assert pipe.read() == "b\n"


async def test_a_flush_writes_the_lines_of_an_unfinished_turn(
    log: logging.Logger, pipe: Pipe
) -> None:
    """`logging` flushes all handlers when the process exits."""
    log.info("a")
    for handler in log.handlers:
        handler.flush()
    assert pipe.read() == "a\n"

    await asyncio.sleep(0)

    assert pipe.read() == ""


async def test_a_full_pipe_does_not_block(log: logging.Logger, pipe: Pipe) -> None:
    """Nor is a line lost: all are written once the reader continues."""
    told = [f"{number} {LONG}" for number in range(100)]
    for line in told:
        log.warning(line)
        await asyncio.sleep(0)

    assert await pipe.read_lines(100) == told


async def test_each_write_has_whole_lines(log: logging.Logger, pipe: Pipe) -> None:
    """So the pipe of a killed process ends with a whole line."""
    for _ in range(10):
        log.info(LONG)
    await asyncio.sleep(0)

    assert pipe.read() == f"{LONG}\n" * 4


async def test_lines_beyond_the_buffer_are_lost_and_counted(
    log: logging.Logger, pipe: Pipe
) -> None:
    """The first line after the gap says how many are missing."""
    kept = BUFFER_BYTES_MAX // len(f"{LONG}\n") + 1
    for _ in range(kept + 1000):
        log.info(LONG)
    fcntl.fcntl(pipe.begin, fcntl.F_SETPIPE_SZ, 2**20)
    assert len(await pipe.read_lines(kept)) == kept

    form = logging.Formatter("%(levelname)s %(message)s %(lines)s", defaults={"lines": ""})
    log.handlers[0].setFormatter(form)
    log.info("again")

    assert await pipe.read_lines(2) == ["WARNING log.lost 1000", "INFO again "]


async def test_a_closed_pipe_is_ignored(log: logging.Logger, pipe: Pipe) -> None:
    """No line is kept, and no error is raised."""
    keep = os.dup(pipe.end)
    os.close(pipe.end)
    os.close(keep)
    log.warning("a")
    log.info("b")
    await asyncio.sleep(0)
    pipe.end = os.open(os.devnull, os.O_RDONLY)


def test_the_end_of_the_process_waits_for_a_slow_reader() -> None:
    """It still gets the lines that were in the buffer."""
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
