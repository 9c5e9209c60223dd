"""The Job of the fleet, run as its container would run it, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.deploy.manifests import named

SECRETS = {"pomogator-database": "", "pomogator-pepper": "all processes have the same"}
"""Values of the secrets that the Job names. The address of the database is added later."""


@pytest.mark.parametrize("overlay", ["fleet", "split"])
async def test_the_job_migrates(overlay: str, postgres_url: str, tmp_path: Path) -> None:
    """On an empty database two Jobs at once make one schema, and a third finds it in order."""
    job = named(overlay, "Job", "pomogator-migration")["spec"]["template"]["spec"]
    (container,) = job["containers"]
    secrets = {**SECRETS, "pomogator-database": postgres_url}
    given = {
        each["name"]: secrets[each["valueFrom"]["secretKeyRef"]["name"]]
        for each in container["env"]
    }
    arguments = [each.replace("/tmp/", f"{tmp_path}/") for each in container["args"]]  # noqa: S108

    async def run() -> int:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", *arguments),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **given},
        )
        return await process.wait()

    assert not any(await asyncio.gather(run(), run()))
    assert await run() == 0

    connection = await asyncpg.connect(postgres_url)
    try:
        tables = {row["tablename"] for row in await connection.fetch("SELECT * FROM pg_tables")}
    finally:
        await connection.close()
    assert {"accounts", "holds", "keys"} <= tables
