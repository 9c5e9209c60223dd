"""Soak, the short form: a few seconds, or as many as POMOGATOR_SOAK_S says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.nightly.soak import run
from tests.stand.servers import TOPOLOGIES, Topology

SECONDS = float(os.environ.get("POMOGATOR_SOAK_S", "15"))
RATE = 40.0


@pytest.mark.nightly
@pytest.mark.timeout(300 + 2 * SECONDS)
@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_nothing_stays_behind(tmp_path: Path, topology: Topology) -> None:
    """Tasks, descriptors, memory, held money and places are as they were before the load."""
    ends = await run(tmp_path, topology, SECONDS, RATE, seed=1)

    assert ends["whole"]
    assert ends["left"]
