"""Contents of whole answers are strings where the configuration, a key or a call asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pomogator.accounts.v1 import key_service_pb2 as keys

from services.config import Config, ReasoningConfig
from tests.stand.dialect_stand import MODEL, THINKING, DialectStand, configuration
from tests.stand.gateway import Transport, running_config
from tests.stand.operators import Operators
from tests.stand.providers.answers import Answer, text, thought
from tests.stand.providers.provider import FakeProvider

ARRAY = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."}]
PLAIN = keys.KeyScope(text_content=True, thinking_names_hidden=True)


@pytest.fixture(params=["in-process", "tcp"])
def transport(request: pytest.FixtureRequest) -> Transport:
    """How the edge reaches the service, which knows the key and the configuration."""
    found: Transport = request.param
    return found


@pytest.fixture
def reasoning() -> ReasoningConfig:
    """The table of the configuration."""
    return ReasoningConfig()


@pytest.fixture
async def stand(
    tmp_path: Path, transport: Transport, reasoning: ReasoningConfig
) -> AsyncIterator[DialectStand]:
    """A gateway in front of a model that thinks."""
    async with FakeProvider("anthropic") as provider:
        provider.say(Answer(parts=[thought("Hm."), text("Yes.")]))
        channel, model = configuration("anthropic", provider.url)
        config = Config(channels=(channel,), models=(model,), reasoning=reasoning)
        async with running_config(tmp_path, config, transport=transport) as gateway:
            yield DialectStand("anthropic", provider, gateway)


async def plain_key(stand: DialectStand) -> str:
    """Return a key that asks for both."""
    async with stand.gateway.service.operators_channel() as channel:
        _, secret = await Operators(channel).create_key("default", PLAIN)
        return secret


async def content(stand: DialectStand, *, key: str = "", **headers: str) -> Any:
    """Return the content of a whole answer, and its header about the content."""
    headers["Authorization"] = f"Bearer {key or stand.gateway.key}"
    body = {"model": THINKING, "messages": [{"role": "user", "content": "Is it?"}]}
    url = f"{stand.gateway.base_url}/chat/completions"
    async with stand.gateway.http.post(url, json=body, headers=headers) as response:
        answer = await response.json()
        assert response.status == 200, answer
        message = answer["choices"][0]["message"]
        assert message["reasoning_content"] == "Hm."
        return message["content"], response.headers.get("x-pomogator-content")


async def listed(stand: DialectStand, key: str = "") -> list[str]:
    """Return the names of the list of models."""
    headers = {"Authorization": f"Bearer {key or stand.gateway.key}"}
    async with stand.gateway.http.get(f"{stand.gateway.base_url}/models", headers=headers) as found:
        return [model["id"] for model in (await found.json())["data"]]


async def test_a_key_asks_for_text(stand: DialectStand) -> None:
    """Its answers are strings, also replayed ones. Those of other keys stay arrays."""
    key = await plain_key(stand)

    assert await content(stand) == (ARRAY, None)
    assert await content(stand, key=key) == ("Yes.", "text")
    once = {"Idempotency-Key": "once"}
    assert await content(stand, key=key, **once) == ("Yes.", "text")
    assert await content(stand, key=key, **once) == ("Yes.", "text")


async def test_a_key_hides_thinking_names(stand: DialectStand) -> None:
    """They are left out of its list, and stay usable."""
    key = await plain_key(stand)

    assert await listed(stand) == [MODEL, THINKING]
    assert await listed(stand, key) == [MODEL]
    url = f"{stand.gateway.base_url}/models/{THINKING}"
    async with stand.gateway.http.get(url, headers={"Authorization": f"Bearer {key}"}) as found:
        assert (await found.json())["id"] == THINKING


@pytest.mark.parametrize("reasoning", [ReasoningConfig(content="text", list_thinking_names=False)])
async def test_the_configuration_asks_for_both(stand: DialectStand) -> None:
    """It does so for every key."""
    assert await content(stand) == ("Yes.", "text")
    assert await listed(stand) == [MODEL]


async def test_a_call_asks_for_text(stand: DialectStand) -> None:
    """It has a header."""
    assert await content(stand, **{"x-pomogator-content": "text"}) == ("Yes.", None)
