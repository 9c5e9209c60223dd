"""Thresholds of glibc's malloc: freed memory stays with the process for the next large body.

A request with an image of 1 MB allocates and frees a dozen buffers of its size. By default glibc
returns such memory to the kernel at once, and new memory has to be mapped page by page. At the
edge an image takes 260 to 270 µs of CPU with these thresholds. Without them it takes 1,040 to
1,060, for 480 page faults more: `python -m tests.bench.edge`, and the same with `--heap default`,
row "picture of 1 MB".

The variables of the environment `MALLOC_TRIM_THRESHOLD_` and `MALLOC_MMAP_THRESHOLD_` have the same
effect (270 to 285 µs), but only where a container image or a unit sets them. Where either is set it
takes precedence.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

TRIM_THRESHOLD_BYTES = 64 * 1024 * 1024
"""The most freed memory at the end of the heap that stays with the process."""

MMAP_THRESHOLD_BYTES = 32 * 1024 * 1024
"""Larger blocks are mapped by themselves, and returned when freed. glibc allows no more."""

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
    """Return all freed memory to the kernel, if the C library is glibc."""
    with suppress(AttributeError):
        # https://man7.org/linux/man-pages/man3/malloc_trim.3.html
        ctypes.CDLL(None).malloc_trim(0)
