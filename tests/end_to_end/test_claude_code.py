"""Claude Code, the real command, over a provider of each dialect."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from tests.stand.dialect_stand import MODEL, DialectStand
from tests.stand.providers.answers import Answer, Refused, call, text, thought

CLAUDE_CODE = os.environ.get("POMOGATOR_CLAUDE_CODE", "")

ASKS = Answer(
    parts=[
        thought("I have", " to look."),
        text("Let me look."),
        call("toolu_0142", "Bash", '{"command": "echo ti', 'de-$((40 + 2))", "description": "e"}'),
    ],
    stop="tool_calls",
)
TELLS = Answer(parts=[text("It says ", "tide.", " All done.")])

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        not (CLAUDE_CODE and shutil.which("node")),
        reason="POMOGATOR_CLAUDE_CODE is not set: Claude Code is not at hand",
    ),
]


async def run(stand: DialectStand, folder: Path, *, model: str = MODEL) -> str:
    """Return the output of the command for one prompt, with an environment of its own."""
    process = await asyncio.create_subprocess_exec(
        *(CLAUDE_CODE, "-p", "What does the tide say?", "--model", model),
        *("--allowedTools", "Bash"),
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "ANTHROPIC_BASE_URL": stand.gateway.url,
            "ANTHROPIC_AUTH_TOKEN": stand.gateway.key,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    return out.decode()


async def test_a_called_tool_is_run(stand: DialectStand, tmp_path: Path) -> None:
    """The command runs the tool that the model called, and prints the answer to its result."""
    stand.provider.say(ASKS, TELLS)

    shown = await run(stand, tmp_path)

    assert shown.strip() == "It says tide. All done."
    first, second = stand.provider.bodies
    assert "What does the tide say?" in str(first)
    assert "tide-42" in str(second)
    assert "Let me look." in str(second)


async def test_a_cut_stream_is_asked_for_whole(stand: DialectStand, tmp_path: Path) -> None:
    """The command repeats a request whose stream broke off, without a stream."""
    stand.provider.say(Answer(parts=[text("It says")], breaks_off="cut"), TELLS)

    shown = await run(stand, tmp_path)

    assert shown.strip() == "It says tide. All done."


async def test_a_short_overload_is_waited_out(stand: DialectStand, tmp_path: Path) -> None:
    """The command retries after the answer's Retry-After."""
    busy = Refused(status=529, kind="overloaded_error", message="Busy.")
    stand.provider.say(*[busy] * 4, TELLS)

    shown = await run(stand, tmp_path)

    assert shown.strip() == "It says tide. All done."


async def test_a_refusal_is_shown(stand: DialectStand, tmp_path: Path) -> None:
    """A request that the provider refuses is not repeated, and its message is shown."""
    message = "The tide table is too long."
    stand.provider.say(Refused(status=400, kind="invalid_request_error", message=message))

    shown = await run(stand, tmp_path)

    assert "400" in shown
    assert len(stand.provider.bodies) == 1


async def test_an_unknown_model_is_shown(stand: DialectStand, tmp_path: Path) -> None:
    """A model that does not exist costs one request."""
    shown = await run(stand, tmp_path, model="house/none")
    assert "house/none" in shown or "model" in shown
    assert stand.provider.bodies == []
