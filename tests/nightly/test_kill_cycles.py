"""Kill cycles, the short form: a few kills of each kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.nightly.kill_cycles import TOPOLOGIES, Topology, run
from tests.stand.deployment import database_for

CYCLES = int(os.environ.get("POMOGATOR_KILLS", "4"))


@pytest.mark.timeout(120 + 20 * CYCLES)
@pytest.mark.parametrize(
    "topology", ["single", "split", pytest.param("fleet", marks=pytest.mark.nightly)]
)
async def test_books_survive_kills(
    tmp_path: Path, topology: Topology, request: pytest.FixtureRequest
) -> None:
    """Whichever process is killed, nothing is lost or doubled, and no hold stays."""
    async with database_for(TOPOLOGIES[topology], request) as url:
        await run(tmp_path, topology, CYCLES, CYCLES, url)
