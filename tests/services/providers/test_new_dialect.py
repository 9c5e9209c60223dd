"""Toy dialect that implements only the interface in `services.providers.base`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest

from services.config import load
from services.providers import registry
from tests.stand.echo_dialect import EchoDialect
from tests.stand.gateway import Gateway, running_config
from tests.stand.upstream import FakeUpstream, json_answer, stream

CONFIG = """
[[channels]]
name = "echo"
dialect = "echo"
base_url = "{url}"
[channels.models]
"test/echo" = "echo-1"
"""


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    """A provider that speaks the dialect."""
    async with FakeUpstream() as provider:
        yield provider


@pytest.fixture
async def gateway(
    upstream: FakeUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """A gateway with one more line in the registry."""
    monkeypatch.setitem(registry.DIALECTS, "echo", EchoDialect())
    path = tmp_path / "pomogator.toml"
    path.write_text(CONFIG.format(url=upstream.url))
    config = load(path, {}, dialects=registry.DIALECTS)
    async with running_config(tmp_path / "state", config) as opened:
        yield opened


async def ask(gateway: Gateway, **fields: object) -> tuple[int, Mapping[str, str], str]:
    """Status, headers and body of a chat completion's answer."""
    body = {"model": "test/echo", "messages": [{"role": "user", "content": "hey"}], **fields}
    async with gateway.http.post(f"{gateway.base_url}/chat/completions", json=body) as answer:
        return answer.status, answer.headers, await answer.text()


async def test_a_whole_answer_is_translated(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The request is the dialect's, the answer and the notes are OpenAI's."""
    upstream.play([json_answer({"say": "hey hey"})])

    status, headers, text = await ask(gateway, temperature=0.5)

    answer = msgspec.json.decode(text)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "hey hey"
    assert answer["usage"]["total_tokens"] == 3
    assert "An echo is never random." in headers["x-pomogator-notes"]
    assert upstream.requests[0].path == "/v1/echo"
    assert upstream.requests[0].json() == {"model": "echo-1", "text": "hey"}


async def test_a_stream_is_translated(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Event by event, since the decoder has no fast path for texts."""
    events = [{"say": "a"}, {"say": "b"}, {"say": "c"}, {"end": True}]
    upstream.play([stream(events, done=False)])

    status, _, text = await ask(gateway, stream=True)

    shown = [msgspec.json.decode(line[6:]) for line in text.split("\n\n") if line[6:7] == "{"]
    said = [choice["delta"].get("content") or "" for event in shown for choice in event["choices"]]
    assert status == 200
    assert "".join(said) == "abc"
    assert text.endswith("data: [DONE]\n\n")


async def test_a_refusal_is_the_dialect_s(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The dialect's `error` decides the status that callers see."""
    upstream.play([json_answer({"why": "busy"}, 418)])

    status, _, _ = await ask(gateway)

    assert status == 503
