"""The command `pomogator` as operators type it: a process that prints and ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.stand.process import POMOGATOR


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs commands on the configuration and the state of one folder."""

    directory: Path
    env: Mapping[str, str] = field(default_factory=dict)

    async def run(self, *arguments: str, code: int = 0) -> str:
        """The output of the command, which must end with this exit code."""
        process = await asyncio.create_subprocess_exec(
            *(*POMOGATOR, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "POMOGATOR_CONFIG": str(self.directory / "pomogator.toml"),
                "POMOGATOR_STATE": str(self.directory / "var"),
                **self.env,
            },
        )
        output, _ = await process.communicate()
        assert process.returncode == code, output.decode()
        return output.decode()


async def refused_start(
    state: Path, *arguments: str | Path, env: Mapping[str, str] | None = None
) -> str:
    """The log of a server that must refuse to start: with exit code 1, and before any key."""
    process = await asyncio.create_subprocess_exec(
        *(*POMOGATOR, "serve", "--state", state, "--rest", "127.0.0.1:0"),
        *("--grpc", "127.0.0.1:0", "--metrics", "", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(env or {})},
    )
    try:
        async with asyncio.timeout(60):
            output, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 1, log.decode()
    assert b"server.started" not in log
    assert b"sk-pg-" not in output
    return log.decode()
