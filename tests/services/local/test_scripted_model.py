"""The scripted model behind a gateway, as `pomogator demo` runs it where no model is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI, BadRequestError
from openai.types.chat import ChatCompletionContentPartImageParam

from services.config import ChannelConfig, load
from services.local import local_models, scripted_server
from services.providers.registry import DIALECTS
from tests.stand.gateway import running

MODEL = "local/scripted"
PNG = "iVBORw0KGgo="
"""The signature of a picture."""

CHANNEL = ChannelConfig(
    name="local", dialect="openai", local="scripted", models={MODEL: "scripted"}
)


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncOpenAI]:
    async with (
        running(tmp_path_factory.mktemp("state"), CHANNEL) as gateway,
        AsyncOpenAI(api_key=gateway.key, base_url=gateway.base_url, max_retries=0) as client,
    ):
        yield client


async def test_whole_answer(client: AsyncOpenAI) -> None:
    """It has the text, a reason to stop and the tokens."""
    answer = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Good evening to you"}]
    )

    assert answer.choices[0].message.content == scripted_server.TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4
    assert answer.usage.completion_tokens == len(scripted_server.WORDS)


async def test_a_picture_is_refused(client: AsyncOpenAI) -> None:
    """Neither the script nor the small model reads one, and a failure would be asked for again."""
    picture: ChatCompletionContentPartImageParam = {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{PNG}"},
    }
    with pytest.raises(BadRequestError) as refused:
        await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": [picture]}],
        )

    assert refused.value.code == "unsupported_parameter"


async def test_streamed_answer_ends_at_the_limit(client: AsyncOpenAI) -> None:
    """The words arrive one by one, as many as are allowed, and then the usage."""
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Good evening"}],
        max_tokens=3,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]

    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    words = [choice.delta.content for choice in choices if choice.delta.content]
    assert words == list(scripted_server.WORDS[:3])
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["length"]
    (usage,) = (chunk.usage for chunk in chunks if chunk.usage)
    assert usage.completion_tokens == 3


@pytest.mark.parametrize("name", ["scripted", "smollm2"])
def test_shipped_configurations_have_a_local_channel(name: str) -> None:
    """Each is valid, and its local model comes before the providers whose keys are set."""
    path = Path(local_models.__file__).with_name(f"{name}.toml")

    first, *others = load(path, {"ANTHROPIC_API_KEY": "k"}, dialects=DIALECTS).channels

    assert first.local.startswith(name)
    assert [each.name for each in others] == ["anthropic"]
