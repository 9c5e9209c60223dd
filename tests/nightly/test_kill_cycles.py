"""Kill cycles, the short form: a few kills of each kind."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.nightly.kill_cycles import Topology, run
from tests.stand.databases import empty_postgres

CYCLES = int(os.environ.get("POMOGATOR_KILLS", "4"))


NIGHTLY = pytest.mark.nightly


@pytest.mark.timeout(120 + 20 * CYCLES)
@pytest.mark.parametrize(
    ("topology", "database"),
    [
        ("single", "sqlite"),
        ("split", "sqlite"),
        pytest.param("single", "postgres", marks=NIGHTLY),
        pytest.param("split", "postgres", marks=NIGHTLY),
        pytest.param("fleet", "postgres", marks=NIGHTLY),
    ],
)
async def test_books_survive_kills(
    tmp_path: Path, topology: Topology, database: str, request: pytest.FixtureRequest
) -> None:
    """Whichever process is killed, nothing is lost or doubled, and no hold stays."""
    url = ""
    async with AsyncExitStack() as stack:
        if database == "postgres":
            server = request.getfixturevalue("postgres_server")
            url = await stack.enter_async_context(empty_postgres(server))
        await run(tmp_path, topology, CYCLES, CYCLES, url)
