"""Configuration watch: reload when another program has replaced the file.

Kubernetes, for example, replaces the file of a mounted config map.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from services.telemetry.supervisor import Supervisor

INTERVAL_S = 5.0
"""Interval between reads. The kubelet takes up to a minute to replace a file."""


def content(path: Path) -> bytes | None:
    """Read a file; None if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


@asynccontextmanager
async def watching_file(
    path: Path,
    seen: bytes,
    changed: Callable[[], None],
    supervisor: Supervisor,
    *,
    interval_s: float = INTERVAL_S,
) -> AsyncIterator[None]:
    """Call `changed` whenever the file's content differs from before, at first from `seen`.

    A file that cannot be read counts as unchanged.
    """
    watch = partial(_watch, _WatchedFile(path, seen), changed, interval_s)
    async with supervisor.running(watch, "configuration"):
        yield


class _WatchedFile:
    def __init__(self, path: Path, seen: bytes) -> None:
        self._path = path
        self._seen = seen

    def has_changed(self) -> bool:
        """Whether the content differs from that at the last call. Blocks."""
        now = content(self._path)
        if now is None or now == self._seen:
            return False
        self._seen = now
        return True


async def _watch(file: _WatchedFile, changed: Callable[[], None], interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        if await asyncio.to_thread(file.has_changed):
            changed()
