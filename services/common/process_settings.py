"""Limits of the process and settings of its garbage collector.

A full collection stops the event loop for as long as it looks at all objects: 15 to 130 ms in a
service. `freeze_gc` exempts the objects of the start, which leaves 0.1 ms. With Python's threshold
garbage collection takes 1 to 5 % of the CPU of calls, with ours next to nothing: `python -m
tests.bench.service`, and the same with `--gc default`.
"""

from __future__ import annotations

import gc
import resource

GC_THRESHOLD = 5_000
"""Net allocations between two collections of young objects (Python's default: 700). A request makes
and drops hundreds of objects, hardly ever in a cycle."""


def raise_fd_limit() -> None:
    """Raise the soft limit of file descriptors, often 1024, to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def disable_core_dumps() -> None:
    """Keep the memory of a crashed process, with its keys and prompts, out of files."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def freeze_gc() -> None:
    """Exempt all objects of the start from garbage collection. Call it once all is set up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
