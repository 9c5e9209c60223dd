"""Libraries in C that have a process meet what the kernel does not do on demand."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="what is preloaded has to be compiled")
"""Marks tests of what is preloaded."""


async def compiled(name: str, folder: Path) -> Path:
    """That program of ours, as a library in the folder, for LD_PRELOAD."""
    library = folder / f"{name}.so"
    source = Path(__file__).parent / "programs" / f"{name}.c"
    compiling = await asyncio.create_subprocess_exec(
        *(str(COMPILER), "-shared", "-fPIC", "-o", library, source)
    )
    assert await compiling.wait() == 0
    return library
