from __future__ import annotations

import asyncio
import os
import platform
import sys

import pytest

from services.common.heap import (
    QUIET_CHECKS,
    QUIET_CHECKS_MAX,
    RELEASE_BYTES_MIN,
    RELEASED_BYTES_MIN,
    FreedMemory,
    resident_bytes,
)

IDLE = 100 * 2**20
PROGRAM = """
import resource
from services.common.heap import keep_freed_memory

if {keep}:
    keep_freed_memory()

def work():
    return [bytearray(1_500_000) for _ in range(8)]

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


IN_USE = """
import psutil
from services.common.heap import release_freed_memory, keep_freed_memory

keep_freed_memory()
me = psutil.Process()
# What stays between pieces keeps those below from being the end of the heap. It is too large for
# holes that the start has left elsewhere.
pieces = [(bytearray(b"x") * 1_500_000, bytearray(b"x") * 50_000) for _ in range(100)]
stays = [small for _, small in pieces]
full = me.memory_info().rss
del pieces
freed = me.memory_info().rss
release_freed_memory()
print(full, freed, me.memory_info().rss)
"""


async def run(program: str, **env: str) -> bytes:
    """Run a program; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | env,
        stdout=asyncio.subprocess.PIPE,
    )
    return (await process.communicate())[0]


async def page_faults(*, keep: bool, **env: str) -> int:
    """Page faults of ten rounds that allocate and free 8 buffers of 1.5 MB each."""
    return int(await run(PROGRAM.format(keep=keep), **env))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the thresholds")
async def test_large_buffers_reuse_freed_memory() -> None:
    """Without it 366 pages have to be mapped for each of 80 buffers."""
    assert await page_faults(keep=False) > 10_000
    assert await page_faults(keep=True) < 1_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the thresholds")
async def test_variables_of_the_environment_take_precedence() -> None:
    """They are glibc's own."""
    assert await page_faults(keep=True, MALLOC_TRIM_THRESHOLD_="131072") > 10_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the thresholds")
async def test_freed_memory_can_be_released() -> None:
    """Of 150 MB, all that was freed stays with the process until then."""
    full, freed, given_back = [int(size) / 1e6 for size in (await run(IN_USE)).split()]
    assert freed > full - 20
    assert given_back < full - 120


class Process:
    """A process whose memory a test sets."""

    def __init__(self) -> None:
        self.size = IDLE
        self.freed = FreedMemory(lambda: self.size)

    def checks_until_release(self, *, left: int, checks_max: int = 100) -> int | None:
        """Check until memory is released, after which `left` bytes stay. None: it never is."""
        for check in range(checks_max):
            if self.freed.should_release():
                self.size = left
                self.freed.released()
                return check
        return None


def test_memory_is_released_after_a_burst() -> None:
    """Not while the process grows, and again where the first time was too early."""
    process = Process()
    for _ in range(3 * QUIET_CHECKS):
        process.size += RELEASE_BYTES_MIN // 4
        assert not process.freed.should_release()

    early = process.size - RELEASED_BYTES_MIN
    assert process.checks_until_release(left=early) == QUIET_CHECKS - 1
    assert process.checks_until_release(left=IDLE) == QUIET_CHECKS
    assert process.checks_until_release(left=IDLE) is None


def test_memory_in_use_is_released_when_it_is_freed() -> None:
    """A release that returns next to nothing is repeated, at growing intervals."""
    process = Process()
    process.size += RELEASE_BYTES_MIN
    waits = [process.checks_until_release(left=process.size, checks_max=1000) for _ in range(8)]
    assert waits == [min(QUIET_CHECKS * 2**times, QUIET_CHECKS_MAX) for times in range(8)]

    assert process.checks_until_release(left=IDLE, checks_max=1000) == QUIET_CHECKS_MAX
    process.size += RELEASE_BYTES_MIN
    assert not process.freed.should_release()
    assert process.checks_until_release(left=IDLE) == QUIET_CHECKS - 1


def test_a_small_process_is_left_alone() -> None:
    """The thresholds keep as much for the next body."""
    process = Process()
    process.size += RELEASE_BYTES_MIN - 1
    assert process.checks_until_release(left=IDLE) is None


def test_the_resident_memory_is_read() -> None:
    """From the kernel, where it is Linux."""
    assert (resident_bytes() > 2**20) == (sys.platform == "linux")
