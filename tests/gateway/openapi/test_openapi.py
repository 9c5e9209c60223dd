from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import openapi_spec_validator
import pytest
from aiohttp import web
from msgspec.structs import replace
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.models.v1 import model_service_pb2 as models

from gateway.config import EdgeConfig
from gateway.errors import invalid
from gateway.openapi import handler, openapi
from gateway.openapi.schemas import Schemas
from gateway.surfaces.models.model_members import members_of
from gateway.surfaces.openai_chat.decode_fields import FIELDS, decode_fields
from gateway.surfaces.openai_chat.render import ChunkRenderer
from gateway.surfaces.openai_chat.render_whole import render_completion
from services.domain.completion import Choice, Completion
from services.domain.conversation import Message, ReasoningPart, TextPart, ToolCall
from services.domain.events import (
    ChoiceFinished,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
)
from services.domain.model import Model, ModelPricing, PricingTier, TokenRates
from services.domain.usage import Usage
from services.rpc.local_channel import local_channel
from tests.gateway.surfaces.test_routes import contract_routes
from tests.gateway.transcoding.sample_service import SOURCE, CompiledService, edge, no_metadata

COMPLETION = Completion(
    completion_id="chatcmpl-1",
    model="m-thinking",
    create_time_s=1,
    choices=[
        Choice(
            message=Message(
                role="assistant",
                content=[ReasoningPart(text="hm"), TextPart(text="hi")],
                tool_calls=[ToolCall(id="c", name="f", arguments="{}")],
            ),
            finish_reason="tool_calls",
        )
    ],
    usage=Usage(prompt_token_count=1, completion_token_count=2, total_token_count=3),
    cost_nano_usd=12,
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> CompiledService:
    """The service with every kind of binding and field that the edge serves."""
    return CompiledService.compiled(tmp_path_factory.mktemp("sample"))


def assert_fits(document: Any, name: str, value: Any) -> None:
    """Check that a value fits the schema of a component."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


def test_the_document_is_valid_openapi(sample: CompiledService) -> None:
    """The version is 3.1, with services and without."""
    openapi_spec_validator.validate(openapi())
    openapi_spec_validator.validate(openapi([sample.service]))


def test_chat_completions_and_models_are_described() -> None:
    """Every route of theirs in the contract is in the part written by hand."""
    described = {(verb, path) for path, item in openapi()["paths"].items() for verb in item}
    for service in (
        chat.DESCRIPTOR.services_by_name["ChatCompletionService"],
        models.DESCRIPTOR.services_by_name["ModelService"],
    ):
        for _, verb, path in contract_routes(service):
            assert (verb.lower(), path.replace("=**", "")) in described


@pytest.mark.parametrize("thinking_parts", [True, False])
@pytest.mark.parametrize("functions", [True, False])
def test_rendered_completions_fit_the_schema(thinking_parts: bool, functions: bool) -> None:
    """With every option of the renderer."""
    body = render_completion(COMPLETION, thinking_parts=thinking_parts, functions=functions)

    assert_fits(openapi(), "ChatCompletion", json.loads(body))


def test_rendered_chunks_fit_the_schema() -> None:
    """Every event of a stream does."""
    renderer = ChunkRenderer(include_usage=True)
    sent = renderer.render(
        [
            Started(completion_id="c", model="m", create_time_s=0),
            TextDelta("hi"),
            ChoiceFinished(finish_reason="stop"),
            Finished(usage=COMPLETION.usage),
        ]
    )
    events = [
        json.loads(line.removeprefix("data: ")) for line in sent.decode().split("\n\n") if line
    ]

    assert len(events) > 3
    for event in events:
        assert_fits(openapi(), "ChatCompletionChunk", event)


@pytest.mark.parametrize(
    "request_body",
    [
        {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
                {"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]},
            ],
            "temperature": 0.5, "top_k": 3, "stop": ["a"], "seed": 1, "max_tokens": 5,
            "reasoning_effort": "high", "stream": True, "stream_options": {"include_usage": True},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        },
    ],
)  # fmt: skip
def test_described_requests_are_accepted(request_body: dict[str, Any]) -> None:
    """A request that fits the schema can be decoded."""
    assert_fits(openapi(), "CreateChatCompletionRequest", request_body)

    assert decode_fields(json.dumps(request_body).encode(), EdgeConfig()).spec.model == "m"


EXAMPLES: dict[str, Any] = {
    "frequency_penalty": 0.5, "function_call": "auto", "functions": [], "include_reasoning": True,
    "logit_bias": {"1": 2}, "logprobs": True, "max_completion_tokens": 9, "max_tokens": 9,
    "metadata": {"a": "b"}, "min_p": 0.1, "n": 1, "parallel_tool_calls": False,
    "presence_penalty": 0.5, "prompt_cache_key": "k",
    "reasoning": {"effort": "low", "exclude": False},
    "reasoning_effort": "low", "repetition_penalty": 1.1, "response_format": {"type": "text"},
    "safety_identifier": "u", "seed": 1, "service_tier": "flex", "stop": ["a"], "stream": True,
    "stream_options": {"include_usage": True}, "temperature": 0.5, "thinking": {"type": "enabled"},
    "tool_choice": "auto", "tools": [], "top_a": 0.1, "top_k": 1, "top_logprobs": 1, "top_p": 0.5,
    "usage": {"include": True}, "user": "u", "verbosity": "low", "cache_control": {"type": "x"},
}  # fmt: skip
"""A value of each field of a request but for `model` and `messages`."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_described_field_is_known(name: str) -> None:
    """It is decoded, and not passed on as an unknown one."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], name: EXAMPLES[name]}
    body |= {"stream": True} if name == "stream_options" else {}
    assert_fits(openapi(), "CreateChatCompletionRequest", body)

    assert not decode_fields(json.dumps(body).encode(), EdgeConfig()).spec.extra_json


def test_each_known_field_is_described() -> None:
    """No field is decoded that the document does not have."""
    described = openapi()["components"]["schemas"]["CreateChatCompletionRequest"]["properties"]

    assert {"model", "messages", *EXAMPLES} == described.keys()
    assert FIELDS.keys() <= described.keys()


def test_models_fit_the_schema() -> None:
    """With all facts, and with those that are always known; no member is left out."""
    rates = TokenRates(prompt_usd="0.000003", completion_usd="0.000015", prompt_audio_usd="0.1")
    tier = PricingTier(above_prompt_token_count=200_000, rates=rates)
    known = Model(
        name="house/model",
        owner="house",
        max_output_token_count=8192,
        context_token_count=200_000,
        reasons=True,
        reasoning_efforts=["low", "high"],
        input_modalities=["text", "image", "file", "audio"],
        output_modalities=["text"],
        supported_parameters=["tools"],
        pricing=ModelPricing(rates=rates, request_usd="0.01", tiers=[tier]),
    )
    for model in (known, Model(name="house/model")):
        assert_fits(openapi(), "Model", members_of(model))
    described = openapi()["components"]["schemas"]["Model"]["properties"]
    assert members_of(known).keys() == described.keys()


def test_reasoning_in_openrouters_form_fits_the_schema() -> None:
    """Of whole answers and chunks."""
    detail = {"type": "reasoning.text", "text": "hm", "format": "unknown", "index": 0}
    details_json = json.dumps([detail]).encode()
    message = Message(
        role="assistant",
        content=[ReasoningPart(text="hm"), TextPart(text="hi")],
        reasoning_details_json=details_json,
    )
    whole = replace(COMPLETION, choices=[Choice(message=message, finish_reason="stop")])
    body = json.loads(render_completion(whole, thinking_parts=False, names_provider=True))
    assert body["choices"][0]["message"]["reasoning_details"] == [detail]
    assert (body["provider"], body["system_fingerprint"]) == ("m-thinking", None)
    assert_fits(openapi(), "ChatCompletion", body)

    renderer = ChunkRenderer(include_usage=False)
    renderer.render([Started(completion_id="c", model="m", create_time_s=0)])
    chunk = renderer.render([ReasoningDelta("hm", details_json=details_json)]).decode()
    event = json.loads(chunk.rpartition("data: ")[2])
    assert event["choices"][0]["delta"]["reasoning_details"] == [detail]
    assert_fits(openapi(), "ChatCompletionChunk", event)


def test_errors_fit_the_schema() -> None:
    """An error body has the described form."""
    assert_fits(openapi(), "Error", json.loads(invalid("model", "There is no such model.").body()))


async def test_transcoded_answers_fit_the_schema(sample: CompiledService) -> None:
    """The transcoder's JSON fits the schema of the method's response."""
    document = openapi([sample.service])
    async with (
        local_channel(sample.register) as channel,
        edge(sample, channel, metadata_of=no_metadata) as url,
        aiohttp.ClientSession(url) as client,
    ):
        for query in ("", "?kind=9&float_value=NaN&time=2026-01-02T03:04:05Z&inner.name=a",
                      "?mask=a&duration=1.5s&int64_wrapper=5&bytes_value=YQ&tags=a"):  # fmt: skip
            async with client.get(f"/v1/things/a{query}") as response:
                assert_fits(document, "sample.v1.Thing", await response.json())


def test_operations_follow_the_annotations(sample: CompiledService) -> None:
    """Paths, parameters, bodies and responses are those of the annotations."""
    paths = openapi([sample.service])["paths"]
    create = paths["/v1/shelves/{parent}/things"]["post"]
    get = paths["/v1/shelves/{parent}/things/{name}"]["get"]
    watch = paths["/v1/watch/{name}"]["get"]

    assert create["operationId"] == "SampleService_CreateThing"
    assert create["summary"] == "Create thing."
    schema = create["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/sample.v1.Inner"}
    query = {each["name"] for each in create["parameters"] if each["in"] == "query"}
    assert {"tags", "kinds", "time", "int64_wrapper"} <= query
    assert not query & {"parent", "inner", "inner.name", "inners", "labels"}
    assert [each["name"] for each in get["parameters"] if each["in"] == "path"] == [
        "parent",
        "name",
    ]
    assert list(watch["responses"]["200"]["content"]) == ["application/x-ndjson"]
    assert "requestBody" not in watch
    assert "parameters" in paths["/v1/shelves/{name}:undo"]["post"]
    assert not [
        each for each in paths["/v1/shelves/{name}:undo"]["post"]["parameters"]
        if each["in"] == "query"
    ]  # fmt: skip


def test_one_path_has_one_parameter_name(tmp_path: Path) -> None:
    """The first name is used if a second method has another one."""
    source = SOURCE.replace('delete: "/v1/things/{name}"', 'delete: "/v1/things/{parent}"')
    document = openapi([CompiledService.compiled(tmp_path, source).service])

    for verb in ("get", "delete"):
        parameters = document["paths"]["/v1/things/{name}"][verb]["parameters"]
        assert [each["name"] for each in parameters if each["in"] == "path"] == ["name"]
    assert "/v1/things/{parent}" not in document["paths"]


def test_required_fields_are_required() -> None:
    """The schema has the field behaviour of the proto."""
    schemas = Schemas()
    schemas.of_message(keys.CreateKeyRequest.DESCRIPTOR)

    assert schemas.found["pomogator.accounts.v1.CreateKeyRequest"]["required"] == ["account"]


async def test_the_document_is_served() -> None:
    """The handler answers with it as JSON."""
    document = openapi()
    app = web.Application()
    app.router.add_get("/openapi.json", handler(document))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{site.port}") as client,
        client.get("/openapi.json") as response,
    ):
        assert await response.json() == document
    await runner.cleanup()
