"""A program in Rust that reads streams with async-openai."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.stand.dialect_stand import MODEL, DialectStand
from tests.stand.providers.answers import Answer, Break, text

SOURCES = Path(__file__).parent / "rust"
CARGO = shutil.which("cargo", path=f"{os.environ['PATH']}:{Path.home()}/.cargo/bin")
CARGO_MIN = (1, 85)
"""The oldest Cargo that reads the packages' manifests."""

# The client is compiled with all that it imports, in a minute or two.
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CARGO is None, reason="Cargo is not installed"),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled client."""
    cargo = str(CARGO)
    said = subprocess.run([cargo, "--version"], check=True, capture_output=True, text=True).stdout
    version = tuple(map(int, re.findall(r"\d+", said)[:2]))
    if version < CARGO_MIN:
        pytest.skip(f"{said.strip()} is too old")
    folder = tmp_path_factory.mktemp("rust") / "client"
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("target"))
    built = subprocess.run(
        [cargo, "build", "--locked", "--quiet", "--target-dir", "made"],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder / "made/debug/client"


async def run(client: Path, stand: DialectStand) -> Any:
    """Return what the client prints of a stream."""
    gateway = stand.gateway
    process = await asyncio.create_subprocess_exec(
        client,
        env={"API_KEY": gateway.key, "BASE_URL": gateway.base_url, "MODEL": MODEL},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_a_whole_stream_is_no_failure(client: Path, stand: DialectStand) -> None:
    """It has all of the text and its finish reason."""
    stand.provider.say(Answer(parts=[text("Hel", "lo")]))

    found = await run(client, stand)

    assert found == {"text": "Hello", "finish_reason": "stop", "error": None}


@pytest.mark.parametrize("breaks_off", ["error", "cut"])
async def test_a_stream_that_breaks_off_is_a_failure(
    client: Path, stand: DialectStand, breaks_off: Break
) -> None:
    """The client gets the text before it, an error, and no finish reason."""
    stand.provider.say(Answer(parts=[text("Hel", "lo")], breaks_off=breaks_off))

    found = await run(client, stand)

    assert found["error"]
    assert (found["text"], found["finish_reason"]) == ("Hello", None)
