"""Freed memory: it stays with the process for the next large body, and is released after a burst.

A request with an image of 1 MB allocates and frees a dozen buffers of its size. By default glibc
returns such memory to the kernel at once, and new memory has to be mapped page by page. At the
edge an image takes 260 to 270 µs of CPU with these thresholds. Without them it takes 1,040 to
1,060, for 480 page faults more: `python -m tests.bench.edge`, and the same with `--heap default`,
row "picture of 1 MB".

After a burst of large bodies that is too much: 16 bodies of 30 MB at once left 950 MB in a process
that had 74, for as long as it was idle. With `FreedMemory` it has 75 to 140 after some seconds.

The variables of the environment `MALLOC_TRIM_THRESHOLD_` and `MALLOC_MMAP_THRESHOLD_` have the same
effect (270 to 285 µs), but only where a container image or a unit sets them. Where either is set it
takes precedence.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TRIM_THRESHOLD_BYTES = 64 * 1024 * 1024
"""The most freed memory at the end of the heap that stays with the process."""

MMAP_THRESHOLD_BYTES = 32 * 1024 * 1024
"""Larger blocks are mapped by themselves, and returned when freed. glibc allows no more."""

RELEASE_BYTES_MIN = 96 * 1024 * 1024
"""Growth of the process above which freed memory is released: more than the thresholds keep."""

RELEASED_BYTES_MIN = 16 * 1024 * 1024
"""The least memory that a release has to return for another one to follow as soon."""

QUIET_CHECKS = 8
"""Checks without growth after which a burst is over."""
QUIET_CHECKS_MAX = 40
"""The most such checks, where releases return little since the memory is in use."""

_STATM = Path("/proc/self/statm")

# https://man7.org/linux/man-pages/man3/mallopt.3.html
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> None:
    """Set the thresholds, if the C library is glibc and the environment does not set them."""
    if any(name in os.environ for name in _VARIABLES):
        return
    with suppress(AttributeError):  # Another C library: it has no `mallopt`.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def release_freed_memory() -> None:
    """Return all freed memory to the kernel, if the C library is glibc.

    A request that failed may be left in a cycle with its traceback, until garbage is collected:
    an idle process never does that by itself.
    """
    gc.collect()
    with suppress(AttributeError):
        # https://man7.org/linux/man-pages/man3/malloc_trim.3.html
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int:
    """Memory of this process. 0: this is no Linux."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class FreedMemory:
    """Decides when freed memory is released: some time after a burst, and not during one.

    Where a release returned little, the memory was in use: the next one is made later.
    """

    def __init__(self, resident: Callable[[], int] = resident_bytes) -> None:
        """`resident` reads the memory of the process."""
        self._resident = resident
        self._least = resident()
        self._peak = 0
        self._quiet_checks = 0
        self._checks_needed = QUIET_CHECKS

    def should_release(self) -> bool:
        """Look at the process, at regular intervals. True: release, then call `released`."""
        size = self._resident()
        self._least = min(self._least, size)
        if size < self._least + RELEASE_BYTES_MIN:
            self._peak = self._quiet_checks = 0
            self._checks_needed = QUIET_CHECKS
            return False
        self._quiet_checks = 0 if size > self._peak else self._quiet_checks + 1
        self._peak = max(self._peak, size)
        return self._quiet_checks >= self._checks_needed

    def released(self) -> None:
        """Note that freed memory was released."""
        was_in_use = self._resident() > self._peak - RELEASED_BYTES_MIN
        needed = 2 * self._checks_needed if was_in_use else QUIET_CHECKS
        self._checks_needed = min(needed, QUIET_CHECKS_MAX)
        self._peak = self._quiet_checks = 0
