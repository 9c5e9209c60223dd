"""Libraries in C that are preloaded to fake faults of the kernel."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="what is preloaded has to be compiled")
"""Skips tests of preloaded libraries without a C compiler."""


async def compiled(name: str, folder: Path) -> Path:
    """Compiles a program of `programs/` into a library for LD_PRELOAD."""
    library = folder / f"{name}.so"
    source = Path(__file__).parent / "programs" / f"{name}.c"
    compiling = await asyncio.create_subprocess_exec(
        *(str(COMPILER), "-shared", "-fPIC", "-o", library, source)
    )
    assert await compiling.wait() == 0
    return library
