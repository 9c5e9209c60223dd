"""Limits of the process and settings of its garbage collector.

A full collection stops the event loop for as long as it looks at all objects: 15 to 130 ms in a
service. `freeze_gc` exempts the objects of the start, which leaves 0.1 ms. With Python's threshold
garbage collection takes 1 to 5 % of the CPU of calls, with ours next to nothing: `python -m
tests.bench.service`, and the same with `--gc default`.
"""

from __future__ import annotations

import gc
import os
import resource
import sys

GC_THRESHOLD = 5_000
"""Net allocations between two collections of young objects (Python's default: 700). A request makes
and drops hundreds of objects, hardly ever in a cycle."""


STANDARD_DESCRIPTORS = 3
"""Standard input, output and error: 0, 1 and 2."""


def open_standard_descriptors() -> None:
    """Open the null device in place of standard descriptors that are closed.

    A socket or database would get their numbers otherwise: libuv aborts then, and what is written
    to standard error would go into the database. Call it before anything is opened.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < STANDARD_DESCRIPTORS:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # Python has found it closed.
            mode = "w" if descriptor else "r"
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


def raise_fd_limit() -> None:
    """Raise the soft limit of file descriptors, often 1024, to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def disable_core_dumps() -> None:
    """Keep the memory of a crashed process, with its keys and prompts, out of files."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def freeze_gc() -> None:
    """Exempt all objects of the start from garbage collection.

    Call it once all is set up, but before the first call can come: what exists by now of a call,
    such as its place in a listener, is never freed if it becomes part of a cycle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
