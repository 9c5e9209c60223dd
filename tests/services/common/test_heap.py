from __future__ import annotations

import asyncio
import os
import platform
import sys

import pytest

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
# What stays between pieces keeps those below from being the end of the heap.
pieces = [(bytearray(b"x") * 1_500_000, bytearray(b"x") * 1_000) for _ in range(100)]
stays = [small for _, small in pieces]
full = me.memory_info().rss
del pieces
freed = me.memory_info().rss
release_freed_memory()
print(full, freed, me.memory_info().rss)
"""


async def run(program: str, **env: str) -> bytes:
    """What it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | env,
        stdout=asyncio.subprocess.PIPE,
    )
    return (await process.communicate())[0]


async def page_faults(*, keep: bool, **env: str) -> int:
    """How many it takes to make and free 120 MB in pieces of 1.5 MB, ten of them at a time."""
    return int(await run(PROGRAM.format(keep=keep), **env))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
async def test_large_buffers_are_made_of_memory_that_is_there() -> None:
    """Instead of page by page: 366 pages for each of 80 buffers."""
    assert await page_faults(keep=False) > 10_000
    assert await page_faults(keep=True) < 1_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
async def test_operators_have_the_last_word() -> None:
    """What they say in glibc's own variables stands."""
    assert await page_faults(keep=True, MALLOC_TRIM_THRESHOLD_="131072") > 10_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
async def test_what_is_kept_can_be_given_back() -> None:
    """150 MB that were freed are in use as before, and then not any more."""
    full, freed, given_back = [int(size) / 1e6 for size in (await run(IN_USE)).split()]
    assert freed > full - 20
    assert given_back < full - 120
