"""What becomes of memory that was freed: while there is enough, it is kept for the next large body.

A request with a picture of 1 MB makes and frees a dozen buffers of its size. glibc gives such
memory back to the kernel at once, and what is taken anew has to be mapped page by page: 2,400
page faults for each picture in the edge alone, which were three quarters of its CPU (1,900 µs a
picture with them, 420 without: `python -m tests.bench.edge`, with and without
`MALLOC_TRIM_THRESHOLD_=131072`).
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

KEPT_BYTES = 64 * 1024 * 1024
"""Freed memory at the end of the heap that stays with the process, at most."""

LARGE_BYTES = 32 * 1024 * 1024
"""What is larger is mapped by itself, and given back when it is freed. glibc allows no more."""

# https://man7.org/linux/man-pages/man3/mallopt.3.html
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> None:
    """Has the C library keep it, if it is glibc and nobody has told it otherwise."""
    if any(name in os.environ for name in _VARIABLES):
        return
    with suppress(AttributeError):  # Another C library: it has no `mallopt`.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Has the C library give all that it keeps to the kernel, if it is glibc."""
    with suppress(AttributeError):
        # https://man7.org/linux/man-pages/man3/malloc_trim.3.html
        ctypes.CDLL(None).malloc_trim(0)
