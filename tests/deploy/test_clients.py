"""The page for clients: its blocks are valid, and its programs get an answer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.config import ChannelConfig
from tests.deploy.manifests import ROOT
from tests.stand.gateway import Gateway, running

PAGE = (ROOT / "deploy" / "CLIENTS.md").read_text()
SECTIONS = dict(re.findall(r"(?ms)^## (.+?)$(.*?)(?=^## |\Z)", PAGE))
MODEL = "local/scripted"
URL = "http://127.0.0.1:8080"
KEY = "sk-pg-…"
NODE_MODULES = os.environ.get("POMOGATOR_NODE_MODULES", "")
AGENTS_PYTHON = os.environ.get("POMOGATOR_AGENTS_PYTHON", "")
NODE_FOLDER = Path(NODE_MODULES).absolute()
ANSWER = "This is no language model but a script"


def blocks(language: str) -> dict[str, str]:
    """Return the blocks in a language, each by its section."""
    return {
        name: block
        for name, text in SECTIONS.items()
        for block in re.findall(rf"(?ms)^```{language}\n(.*?)^```", text)
    }


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with the model of `pomogator demo`."""
    channel = ChannelConfig(
        name="local", dialect="openai", local="scripted", models={MODEL: "scripted"}
    )
    async with running(tmp_path / "state", channel) as gateway:
        yield gateway


async def printed(gateway: Gateway, *command: str | Path, cwd: Path) -> str:
    """Return what a program of the page prints, for this gateway."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=os.environ | {"POMOGATOR_KEY": gateway.key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def adapted(block: str, gateway: Gateway) -> str:
    """Return a block with the URL and the key of a gateway."""
    assert URL in block
    return block.replace(URL, gateway.url).replace(KEY, gateway.key)


def test_each_client_of_the_table_has_a_section() -> None:
    """By its name, and in its order."""
    rows = re.findall(r"(?m)^\| (?!client|---)(.+?) \|", PAGE)

    assert [row.strip("`").removesuffix(" SDK") for row in rows] == [
        name.removesuffix(" SDK") for name in SECTIONS
    ]


@pytest.mark.parametrize("client", blocks("sh"))
def test_commands_are_valid(client: str) -> None:
    """A shell can read them, and they name the gateway."""
    block = blocks("sh")[client]
    done = subprocess.run(("/bin/sh", "-n"), input=block.encode(), capture_output=True, check=False)

    assert done.returncode == 0, done.stderr.decode()
    assert ":8080" in block


def test_configurations_are_valid() -> None:
    """Their values are where the clients look for them."""
    codex = tomllib.loads(blocks("toml")["Codex"])
    provider = codex["model_providers"][codex["model_provider"]]
    assert provider["wire_api"] == "responses"
    assert provider["base_url"] == f"{URL}/v1"
    opencode = json.loads(blocks("json")["opencode"])["provider"]["pomogator"]
    assert opencode["options"]["baseURL"] == f"{URL}/v1"
    assert MODEL in opencode["models"]


@pytest.mark.parametrize(
    ("client", "python"),
    [
        ("LangChain", sys.executable),
        pytest.param(
            "OpenAI Agents SDK",
            AGENTS_PYTHON,
            marks=pytest.mark.skipif(
                not AGENTS_PYTHON,
                reason="POMOGATOR_AGENTS_PYTHON is not set: no Python with the Agents SDK",
            ),
        ),
    ],
)
async def test_programs_in_python_get_an_answer(
    gateway: Gateway, tmp_path: Path, client: str, python: str
) -> None:
    """They run unchanged from the page."""
    block = blocks("python")[client]
    compile(block, client, "exec")

    shown = await printed(gateway, python, "-c", adapted(block, gateway), cwd=tmp_path)

    assert shown.startswith(ANSWER)


@pytest.mark.skipif(
    not (NODE_MODULES and shutil.which("node")),
    reason="POMOGATOR_NODE_MODULES is not set: Node's packages are not at hand",
)
async def test_the_program_in_javascript_gets_an_answer(gateway: Gateway, tmp_path: Path) -> None:
    """It runs unchanged from the page."""
    (tmp_path / "node_modules").symlink_to(NODE_FOLDER)
    program = tmp_path / "program.mjs"
    program.write_text(adapted(blocks("js")["Vercel AI SDK"], gateway))

    shown = await printed(gateway, "node", program, cwd=tmp_path)

    assert shown.startswith(ANSWER)
