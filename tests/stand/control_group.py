"""Control groups with little memory, of whichever version the machine has.

https://docs.kernel.org/admin-guide/cgroup-v2.html,
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from gateway.overload.cgroup import MEMBERSHIP, ROOT

JOIN = "import runpy; open({procs!r}, 'w').write('0'); "
_numbers = count()


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """A control group whose processes together may have so much memory."""

    folder: Path
    limit_bytes: int

    @property
    def join(self) -> str:
        """Python code with which a process joins the group."""
        return JOIN.format(procs=str(self.folder / "cgroup.procs"))

    def program(self, module: str) -> Sequence[str]:
        """The command of a module that runs in the group."""
        return (sys.executable, "-c", f"{self.join}runpy.run_module({module!r}, None, '__main__')")

    @property
    def kills(self) -> int:
        """The number of its processes that the kernel has killed for lack of memory."""
        for name in ("memory.events", "memory.oom_control"):
            with suppress(FileNotFoundError):
                lines = (self.folder / name).read_text().splitlines()
                return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        raise FileNotFoundError(self.folder)


@contextmanager
def control_group(limit_bytes: int) -> Iterator[ControlGroup]:
    """A group of a test. Skips where the machine allows none, as without root."""
    try:
        folder, limit = _place(ROOT, MEMBERSHIP)
        folder = folder / f"pomogator-{os.getpid()}-{next(_numbers)}"
        folder.mkdir()
        (folder / limit).write_text(str(limit_bytes))
    except (OSError, ValueError) as error:
        pytest.skip(f"no control group can be made here: {error!r}")
    with suppress(OSError):  # Without swap there is no such file.
        (folder / "memory.swap.max").write_text("0")
    try:
        yield ControlGroup(folder, limit_bytes)
    finally:
        with suppress(OSError):
            folder.rmdir()


def _place(root: Path, membership: Path) -> tuple[Path, str]:
    """The folder in which groups with a memory limit can be made, and the file of the limit.

    Raises ValueError if there is no such place.
    """
    lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            return root / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
    for _, controllers, path in lines:
        if not controllers:
            own = root / path.lstrip("/")
            # In version 2 a group has either processes or groups within, so that it may be a parent
            # of ours that passes the controller on.
            for folder in (own, *own.parents):
                if folder.is_relative_to(root) and "memory" in _passed_on(folder):
                    return folder, "memory.max"
    raise ValueError("no parent passes the controller of memory on")


def _passed_on(folder: Path) -> Sequence[str]:
    return (folder / "cgroup.subtree_control").read_text().split()
