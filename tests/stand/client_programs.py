"""Programs of clients against a gateway: each prints its result as a line of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.stand.gateway import Gateway

NODE_MODULES = os.environ.get("POMOGATOR_NODE_MODULES", "")
SCRIPTS = Path(__file__).parents[1] / "end_to_end" / "node"

needs_node = pytest.mark.skipif(
    not (NODE_MODULES and shutil.which("node")),
    reason="POMOGATOR_NODE_MODULES is not set: Node's packages are not at hand",
)


async def printed(gateway: Gateway, model: str, *command: str) -> Any:
    """Run a command, which must succeed, and return the JSON of its last line."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | {"API_KEY": gateway.key, "BASE_URL": gateway.base_url, "MODEL": model},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out.splitlines()[-1])  # Packages may warn before that.


async def printed_by_node(gateway: Gateway, model: str, script: str, *arguments: str) -> Any:
    """Run a script of `tests/end_to_end/node`, and return the JSON of its last line."""
    return await printed(gateway, model, "node", str(SCRIPTS / script), *arguments)
