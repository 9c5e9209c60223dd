"""OpenAI's older completions through the whole gateway, with its SDK and without."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError

from services.config import ChannelConfig, ModelConfig
from tests.stand.gateway import TRANSPORTS, Gateway, Transport, running
from tests.stand.response import ReadResponse, read
from tests.stand.upstream import CUT, LAST_CHUNK, SSE_HEAD, FakeUpstream, Script, json_answer, sse

MODEL = "house/text"
USAGE = {"prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9}
COST = "0.000036"
"""6 tokens at $3 and 3 at $6, a million."""
PRICE: Mapping[str, Any] = {
    "prompt_usd_per_mtok": Decimal(3),
    "completion_usd_per_mtok": Decimal(6),
}
LOGPROBS: Mapping[str, Any] = {
    "tokens": ["ret", "urn"],
    "token_logprobs": [-0.25, -0.5],
    "top_logprobs": [{"ret": -0.25, "def": -2.5}, {"urn": -0.5}],
    "text_offset": [12, 15],
}


def document(*texts: str, logprobs: Any = None) -> dict[str, Any]:
    """An answer of the provider."""
    choices = [
        {"text": text, "index": index, "logprobs": logprobs, "finish_reason": "stop"}
        for index, text in enumerate(texts)
    ]
    named = {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m"}
    return {**named, "choices": choices, "usage": USAGE}


def chunk(text: str, finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    """A chunk of a streamed answer."""
    choice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish}
    return {"id": "cmpl-1", "object": "text_completion", "created": 7, "choices": [choice]}


STREAM: Script = [
    SSE_HEAD
    + sse(chunk("re"), chunk("turn "), chunk("x"), chunk("", "length"))
    + sse({"id": "cmpl-1", "choices": [], "usage": USAGE}, "[DONE]")
    + LAST_CHUNK
]


@asynccontextmanager
async def served(
    state: Path, transport: Transport = "in-process", **fields: Any
) -> AsyncIterator[tuple[Gateway, FakeUpstream, AsyncOpenAI]]:
    """A gateway, its provider, and the SDK."""
    async with FakeUpstream() as upstream:
        given = {"dialect": "openai", "models": {MODEL: "m"}, **fields}
        channel = ChannelConfig(name="text", base_url=upstream.url, **given)
        models = [ModelConfig(name=MODEL, **PRICE)]
        async with (
            running(state, channel, models=models, transport=transport) as gateway,
            AsyncOpenAI(api_key=gateway.key, base_url=gateway.base_url, max_retries=0) as client,
        ):
            yield gateway, upstream, client


async def ask(gateway: Gateway, **body: Any) -> ReadResponse:
    """Post a request for a completion of a text."""
    url, sent = f"{gateway.base_url}/completions", {"model": MODEL, **body}
    async with gateway.http.post(url, json=sent) as answer:
        return await read(answer)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_whole_answer_is_billed(tmp_path: Path, transport: Transport) -> None:
    """The provider gets the prompt and the suffix."""
    async with served(tmp_path, transport) as (_, upstream, client):
        upstream.play([json_answer(document("return x"))])
        raw = await client.completions.with_raw_response.create(
            model=MODEL, prompt="def f(x):\n  ", suffix="\n\nf(1)", max_tokens=20, user="u"
        )
        answer = raw.parse()

        assert upstream.requests[0].path == "/v1/completions"
        assert upstream.requests[0].json() == {
            "model": "m",
            "prompt": "def f(x):\n  ",
            "suffix": "\n\nf(1)",
            "max_tokens": 20,
            "user": "u",
            "stream": False,
        }
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.model == MODEL
    (choice,) = answer.choices
    assert (choice.text, choice.index, choice.finish_reason) == ("return x", 0, "stop")
    assert choice.logprobs is None
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 3)
    assert raw.headers["x-pomogator-cost"] == COST


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_has_the_providers_pieces(tmp_path: Path, transport: Transport) -> None:
    """It has the usage on request."""
    async with served(tmp_path, transport) as (gateway, upstream, client):
        upstream.play(STREAM)
        stream = await client.completions.create(
            model=MODEL, prompt="a", stream=True, stream_options={"include_usage": True}
        )
        chunks = [piece async for piece in stream]
        plain = await ask(gateway, prompt="a", stream=True)

        assert upstream.requests[0].json()["stream_options"] == {"include_usage": True}
    texts = [piece.choices[0].text for piece in chunks[:-1]]
    assert texts == ["re", "turn ", "x", ""]
    assert [piece.choices[0].finish_reason for piece in chunks[:-1]] == [None, None, None, "length"]
    assert len({piece.id for piece in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 9
    assert plain.events[-1] == "[DONE]"
    assert all("usage" not in event for event in plain.events[:-1])


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_have_the_older_form(tmp_path: Path, stream: bool) -> None:
    """They are lists, with the offset of each token."""
    script: Script = [json_answer(document("return", logprobs=LOGPROBS))]
    if stream:
        pieces = [
            {name: values[:1] for name, values in LOGPROBS.items()},
            {name: values[1:] for name, values in LOGPROBS.items()},
        ]
        script = [
            SSE_HEAD
            + sse(chunk("ret", logprobs=pieces[0]), chunk("urn", logprobs=pieces[1]))
            + sse(chunk("", "stop"), "[DONE]")
            + LAST_CHUNK
        ]
    async with served(tmp_path) as (gateway, upstream, _):
        upstream.play(script)
        answer = await ask(gateway, prompt="def f(x):\n  ", logprobs=2, stream=stream)

        assert upstream.requests[0].json()["logprobs"] == 2
    if not stream:
        assert answer.json["choices"][0]["logprobs"] == LOGPROBS
        return
    found = [event["choices"][0]["logprobs"] for event in answer.events[:2]]
    assert {name: found[0][name] + found[1][name] for name in LOGPROBS} == LOGPROBS


async def test_an_echo_begins_with_the_prompt(tmp_path: Path) -> None:
    """Its first token has no probability, and begins at 0."""
    lists = {"tokens": ["Hi", " you"], "token_logprobs": [None, -1], "top_logprobs": [None, None]}
    async with served(tmp_path) as (gateway, upstream, _):
        upstream.play([json_answer(document("Hi you", logprobs=lists))])
        answer = await ask(gateway, prompt="Hi", echo=True, logprobs=0)

        assert upstream.requests[0].json()["echo"] is True
    shown = answer.json["choices"][0]
    assert shown["text"] == "Hi you"
    assert shown["logprobs"] == {**lists, "text_offset": [0, 2]}


async def test_several_answers_come_apart(tmp_path: Path) -> None:
    """Candidates that are billed and not shown are refused."""
    async with served(tmp_path) as (gateway, upstream, client):
        upstream.play([json_answer(document("a", "b"))])
        answer = await client.completions.create(model=MODEL, prompt=["x"], n=2, best_of=2)
        refused = await ask(gateway, prompt="x", best_of=3)

        assert len(upstream.requests) == 1
    assert [choice.text for choice in answer.choices] == ["a", "b"]
    assert (refused.status, refused.error["param"]) == (400, "best_of")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": "a", "suffix": 1}, "suffix"),
        ({"prompt": "a", "echo": "yes"}, "echo"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "stop": ["a"] * 5}, "stop"),
        ({"prompt": "a", "stream_options": {}}, "stream_options"),
    ],
)
async def test_a_wrong_request_names_its_fault(
    tmp_path: Path, body: dict[str, Any], param: str
) -> None:
    """It is refused with 400 before a provider is asked."""
    async with served(tmp_path) as (gateway, upstream, _):
        answer = await ask(gateway, **body)

        assert (answer.status, answer.error["param"]) == (400, param)
        assert not upstream.requests


@pytest.mark.parametrize("dialect", ["anthropic", "openrouter"])
async def test_other_dialects_refuse_texts(tmp_path: Path, dialect: str) -> None:
    """A prompt is not turned into a conversation in silence."""
    async with served(tmp_path, dialect=dialect) as (_, upstream, client):
        with pytest.raises(BadRequestError) as refused:
            await client.completions.create(model=MODEL, prompt="a")

        assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "prompt")
        assert not upstream.requests


async def test_fields_of_conversations_are_noted(tmp_path: Path) -> None:
    """In strict mode they are refused."""
    async with served(tmp_path) as (gateway, upstream, _):
        upstream.play([json_answer(document("b"))])
        answer = await ask(gateway, prompt="a", tools=[{"type": "function"}], guided_regex="b+")

        assert upstream.requests[0].json()["guided_regex"] == "b+"
        assert "tools" not in upstream.requests[0].json()
    (note,) = json.loads(answer.headers["x-pomogator-notes"])
    assert (note["param"], note["action"]) == ("tools", "dropped")


async def test_a_stream_that_breaks_off_ends_with_an_error(tmp_path: Path) -> None:
    """It has no finish reason."""
    async with served(tmp_path) as (gateway, upstream, _):
        upstream.play([SSE_HEAD + sse(chunk("re")), CUT])
        answer = await ask(gateway, prompt="a", stream=True)

    assert answer.events[0]["choices"][0]["text"] == "re"
    assert answer.error["code"] == "upstream_disconnected"
    assert answer.events[-1] == "[DONE]"
