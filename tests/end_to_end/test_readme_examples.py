"""The first page's examples for clients, run as they are against a gateway of the test's own."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.deploy.manifests import ROOT
from tests.stand.configuration import configuration
from tests.stand.held_provider import HeldProvider
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

README = (ROOT / "README.md").read_text()
MODEL = "local/smollm2-135m"


def example(name: str) -> str:
    """Return the indented block below `**name**`."""
    (block,) = re.findall(rf"(?m)^\*\*{name}\*\*.*\n\n((?:(?:    .*)?\n)+)", README)
    return re.sub(r"(?m)^    ", "", block)


@pytest.mark.parametrize("name", ["Python", "gRPC"])
async def test_an_example_streams_an_answer(tmp_path: Path, name: str) -> None:
    """With another address, key and model in it, and nothing else changed."""
    async with FakeUpstream() as upstream:
        upstream.play(HeldProvider())
        config = configuration(upstream.url).replace("house/model", MODEL)
        async with running_server(tmp_path, config) as server:
            text = example(name)
            for shown, real in (
                ("127.0.0.1:8080", await server.address("http")),
                ("127.0.0.1:50051", await server.tcp_address()),
                ("sk-pg-…", server.key),
            ):
                text = text.replace(shown, real)
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-c", text, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await program.communicate()

    assert (program.returncode, output) == (0, b"Good day")
