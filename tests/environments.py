"""What we ship, and environments that are empty but for what they are told to install."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "deploy" / "locks"


def build(target: str, folder: Path) -> Path:
    """Builds a wheel or a source archive of the checkout: its path."""
    command = (sys.executable, "-m", "hatchling", "build", "--target", target, "-d", str(folder))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    (built,) = folder.iterdir()
    return built


def pins(lock: str) -> list[str]:
    """The versions that a lock names, as constraints for pip."""
    return re.findall(r"(?m)^[\w.-]+==[^\s;]+", (LOCKS / lock).read_text())


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment of its own, which sees nothing of the checkout."""

    folder: Path
    """Where it is."""

    def program(self, name: str) -> Path:
        """Where a program of it is, such as `python`."""
        return self.folder / "bin" / name

    def pip(self, *arguments: str | Path) -> None:
        """Runs pip for it, which must succeed."""
        done = self._pip(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def install(self, *what: str | Path, pinned: Iterable[str]) -> None:
        """Installs this and what it needs, of the versions that are pinned; all must agree."""
        constraints = self.folder / "constraints.txt"
        constraints.write_text("\n".join(pinned))
        self.pip("install", "--quiet", "--no-compile", "--constraint", constraints, *what)
        self.pip("check")

    async def run(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
        """What a Python program says, which must succeed; warnings are errors."""
        process = await asyncio.create_subprocess_exec(
            *(self.program("python"), "-W", "error", *arguments),
            cwd=self.folder,
            env={**_without_checkout(), **(env or {})},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, (out + err).decode()
        return out.decode()

    def _pip(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        # The checkout's pip: a pip of its own takes longer to install than most of what follows.
        return subprocess.run(
            (sys.executable, "-m", "pip", "--python", self.program("python"), *arguments),
            cwd=self.folder,
            env=_without_checkout(),
            capture_output=True,
            check=False,
            text=True,
        )


def empty(folder: Path) -> Environment:
    """A new environment without any package; skips where no registry answers."""
    if not _reaches_registry():
        pytest.skip("no package registry answers")
    venv.create(folder, with_pip=False)
    return Environment(folder)


@cache
def _reaches_registry() -> bool:
    """Whether there is anything to install from."""
    with tempfile.TemporaryDirectory() as folder:
        command = ("download", "--quiet", "--no-deps", "--dest", folder, "pip")
        done = subprocess.run((sys.executable, "-m", "pip", *command), check=False)
    return done.returncode == 0


def _without_checkout() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
