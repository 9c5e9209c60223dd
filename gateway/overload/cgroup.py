"""How much memory the process's container has left, as the kernel tells it.

Both versions of control groups are read: https://docs.kernel.org/admin-guide/cgroup-v2.html and
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

UNBOUNDED = 2**60
"""Bytes. Where there is no limit, version 1 tells one that is near 2^63."""


class _Files(NamedTuple):
    """Where a group tells of its memory."""

    limit: str
    used: str
    given_up: tuple[str, ...]
    """Lines of `memory.stat`: what the kernel takes back before it kills."""


_V2 = _Files("memory.max", "memory.current", ("active_file", "inactive_file", "slab_reclaimable"))
_V1 = _Files(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)


class _Group(NamedTuple):
    folder: Path
    files: _Files

    def used_share(self) -> float:
        """How much of the limit is in use; 0 where there is no limit, or none that can be seen.

        Raises OSError where it cannot be said at the moment, as without a free descriptor.
        """
        try:
            limit = (self.folder / self.files.limit).read_text().strip()
            if not limit.isdecimal() or not 0 < int(limit) < UNBOUNDED:
                return 0.0
            used = int((self.folder / self.files.used).read_text())
            stat = (self.folder / "memory.stat").read_text().splitlines()
            lines = (line.partition(" ") for line in stat)
            given_up = sum(int(size) for name, _, size in lines if name in self.files.given_up)
        except (FileNotFoundError, PermissionError, ValueError):
            return 0.0
        return max(0, used - given_up) / int(limit)


class ContainerMemory:
    """The memory of the groups that a process belongs to: its own, and those around it."""

    def __init__(self, root: Path = ROOT, membership: Path = MEMBERSHIP) -> None:
        """`root` is where groups are mounted, `membership` the kernel's list of the process's."""
        self._groups = tuple(_groups(root, membership))

    def used_share(self) -> float:
        """How much is in use of what may be, from 0 to 1; 0 where there is no limit.

        Raises OSError where it cannot be said at the moment.
        """
        return max((group.used_share() for group in self._groups), default=0.0)


def _groups(root: Path, membership: Path) -> Iterator[_Group]:
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return  # No Linux, or no /proc.
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, files = root, _V2
        elif "memory" in controllers.split(","):
            top, files = root / "memory", _V1
        else:
            continue
        # In a namespace of its own a container sees its group as the uppermost.
        own = top / path.lstrip("/")
        inside = [own, *own.parents]
        yield from (_Group(folder, files) for folder in inside[: inside.index(top) + 1])
