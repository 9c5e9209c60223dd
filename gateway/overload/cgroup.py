"""Memory usage of the process's container, read from its control groups.

Both versions of control groups are read: https://docs.kernel.org/admin-guide/cgroup-v2.html and
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

UNBOUNDED = 2**60
"""Bytes. Version 1 shows a limit near 2^63 for "no limit"."""


class _Files(NamedTuple):
    """The files of a control group that describe its memory."""

    limit: str
    used: str
    reclaimable: tuple[str, ...]
    """Lines of `memory.stat`: memory that the kernel reclaims before it kills a process."""


_V2 = _Files("memory.max", "memory.current", ("active_file", "inactive_file", "slab_reclaimable"))
_V1 = _Files(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")
)


class _Group(NamedTuple):
    folder: Path
    files: _Files

    def limit_bytes(self) -> int | None:
        """Return the limit; None where the group has no limit. Raises OSError."""
        limit = (self.folder / self.files.limit).read_text().strip()
        return int(limit) if limit.isdecimal() and 0 < int(limit) < UNBOUNDED else None

    def used_share(self) -> float:
        """Return the used share of the limit; 0 where there is no limit, or no visible one.

        Raises OSError where it cannot be read at the moment, as without a free descriptor.
        """
        try:
            limit = self.limit_bytes()
            if limit is None:
                return 0.0
            used = int((self.folder / self.files.used).read_text())
            stat = (self.folder / "memory.stat").read_text().splitlines()
            lines = (line.partition(" ") for line in stat)
            reclaimable = sum(
                int(size) for name, _, size in lines if name in self.files.reclaimable
            )
        except (FileNotFoundError, PermissionError, ValueError):
            return 0.0
        return max(0, used - reclaimable) / limit


class ContainerMemory:
    """The memory of the control groups that the process belongs to: its own and their parents."""

    def __init__(self, root: Path = ROOT, membership: Path = MEMBERSHIP) -> None:
        """`root` is the mount point of control groups, `membership` the process's list of them."""
        self._groups = tuple(_groups(root, membership))

    def limit_bytes(self) -> int | None:
        """Return the smallest limit of any group; None where no group has a visible limit."""
        limits: list[int] = []
        for group in self._groups:
            with suppress(OSError):
                if (limit := group.limit_bytes()) is not None:
                    limits.append(limit)
        return min(limits, default=None)

    def used_share(self) -> float:
        """Return the largest used share of any group, from 0 to 1; 0 where there is no limit.

        Raises OSError where it cannot be read at the moment.
        """
        return max((group.used_share() for group in self._groups), default=0.0)


def _groups(root: Path, membership: Path) -> Iterator[_Group]:
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return  # Not Linux, or no /proc.
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, files = root, _V2
        elif "memory" in controllers.split(","):
            top, files = root / "memory", _V1
        else:
            continue
        # In its own namespace a container sees its group as the topmost one.
        own = top / path.lstrip("/")
        inside = [own, *own.parents]
        yield from (_Group(folder, files) for folder in inside[: inside.index(top) + 1])
