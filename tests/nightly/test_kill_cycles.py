"""The short form: a few kills of each kind in every run of the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.nightly.kill_cycles import Topology, run

CYCLES = int(os.environ.get("POMOGATOR_KILLS", "4"))


@pytest.mark.timeout(120 + 20 * CYCLES)
@pytest.mark.parametrize("topology", ["single", "split"])
async def test_books_survive_kills(tmp_path: Path, topology: Topology) -> None:
    """Whoever dies, whenever: nothing is lost or doubled, and nothing stays held."""
    await run(tmp_path, topology, CYCLES, seed=CYCLES)
