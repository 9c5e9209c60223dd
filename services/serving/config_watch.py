"""A file that others replace while we run, such as one that Kubernetes mounts from a config map."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from services.telemetry.supervisor import Supervisor

EVERY_S = 5.0
"""How often it is read. The kubelet takes up to a minute to replace one."""


def content(path: Path) -> bytes | None:
    """What a file says; None where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


@asynccontextmanager
async def following(
    path: Path,
    seen: bytes,
    changed: Callable[[], None],
    supervisor: Supervisor,
    *,
    every_s: float = EVERY_S,
) -> AsyncIterator[None]:
    """Calls `changed` whenever the file has another content than before, at first than `seen`.

    A file that cannot be read is one that has not changed.
    """
    follow = partial(_follow, _File(path, seen), changed, every_s)
    async with supervisor.running(follow, "configuration"):
        yield


class _File:
    def __init__(self, path: Path, seen: bytes) -> None:
        self._path = path
        self._seen = seen

    def has_changed(self) -> bool:
        """Whether it is another than when this was last asked. Blocks."""
        now = content(self._path)
        if now is None or now == self._seen:
            return False
        self._seen = now
        return True


async def _follow(file: _File, changed: Callable[[], None], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        if await asyncio.to_thread(file.has_changed):
            changed()
