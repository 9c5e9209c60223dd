"""Requests to providers: exactly what was asked for, in their form, and nothing besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stand.dialect_stand import MODEL, PROVIDER_KEY, THINKING, UPSTREAM_MODELS, DialectStand
from tests.stand.providers.answers import Answer, text
from tests.stand.upstream import Request

Json = dict[str, Any]

GREETING = Answer(parts=[text("Hello")])
QUESTION: Json = {"role": "user", "content": "Hi"}
SCHEMA: Json = {"type": "object", "properties": {"x": {"type": "integer"}}}
CLOSED: Json = SCHEMA | {"additionalProperties": False}
TOOL: Json = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}

ITEM: Json = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
PLAIN: Mapping[str, Json] = {
    "anthropic": {
        "max_tokens": 32_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "stream": True,
    },
    "openai": {"messages": [QUESTION], "stream": False},
    "openai-responses": {
        "input": [ITEM],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "stream": False,
    },
    "openrouter": {"messages": [QUESTION], "stream": False, "usage": {"include": True}},
}
"""The whole body for a plain question, beside the model."""

STREAMED: Mapping[str, Json] = {
    "anthropic": {},
    "openai": {"stream": True, "stream_options": {"include_usage": True}},
    "openai-responses": {"stream": True},
    "openrouter": {"stream": True, "stream_options": {"include_usage": True}},
}
"""Members of the body for a caller who wants a stream, by dialect."""

SAID: Mapping[str, Json] = {
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.9},
    "stop": {"stop": "END"},
    "max_completion_tokens": {"max_completion_tokens": 77},
    "seed": {"seed": 7},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "top_k": {"top_k": 40},
    "repetition_penalty": {"repetition_penalty": 1.1},
    "user": {"safety_identifier": "u-1"},
    "cache key": {"prompt_cache_key": "chapter-1"},
    "tier": {"service_tier": "priority"},
    "tools": {"tools": [TOOL], "parallel_tool_calls": False},
    "choice": {"tools": [TOOL], "tool_choice": "required"},
    "schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": CLOSED, "strict": True},
        }
    },
    "system": {"messages": [{"role": "developer", "content": "Be brief."}, QUESTION]},
    "effort": {"model": THINKING, "reasoning_effort": "low", "max_tokens": 9000},
    "budget": {"model": THINKING, "thinking": {"budget_tokens": 5000}, "max_tokens": 9000},
}
"""Members of a request beside the plain question."""

ANTHROPIC_TOOL: Json = {"name": "f", "input_schema": SCHEMA}
SYSTEM: Json = {"role": "system", "content": "Be brief."}
FLAT_TOOL: Json = {"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}
FLAT_FORMAT: Json = {"type": "json_schema", "name": "a", "schema": CLOSED, "strict": True}
DEVELOPER: Json = {
    "type": "message",
    "role": "developer",
    "content": [{"type": "input_text", "text": "Be brief."}],
}
HEARD: Mapping[str, Mapping[str, Json]] = {
    "anthropic": {
        "temperature": {"temperature": 0.5},
        "top_p": {"top_p": 0.9},
        "stop": {"stop_sequences": ["END"]},
        "max_completion_tokens": {"max_tokens": 77},
        "seed": {},
        "frequency_penalty": {},
        "top_k": {"top_k": 40},
        "repetition_penalty": {},
        "user": {"metadata": {"user_id": "u-1"}},
        "cache key": {},
        "tier": {"service_tier": "auto"},
        "tools": {
            "tools": [ANTHROPIC_TOOL],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        },
        "choice": {"tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "any"}},
        "schema": {"output_config": {"format": {"type": "json_schema", "schema": CLOSED}}},
        "system": {"system": [{"type": "text", "text": "Be brief."}]},
        "effort": {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 9000},
        "budget": {"thinking": {"type": "enabled", "budget_tokens": 5000}, "max_tokens": 9000},
    },
    "openai": {
        **{name: said for name, said in SAID.items() if "model" not in said},
        "stop": {"stop": ["END"]},
        "max_completion_tokens": {"max_tokens": 77},
        "user": {"user": "u-1"},
        "tier": {},
        "system": {"messages": [SYSTEM, QUESTION]},
        "effort": {"reasoning_effort": "low", "max_tokens": 9000},
        "budget": {"reasoning_effort": "medium", "max_tokens": 9000},
    },
    "openai-responses": {
        **{name: {} for name in SAID},
        "max_completion_tokens": {"max_output_tokens": 77},
        "user": {"safety_identifier": "u-1"},
        "cache key": {"prompt_cache_key": "chapter-1"},
        "tools": {"tools": [FLAT_TOOL], "parallel_tool_calls": False},
        "choice": {"tools": [FLAT_TOOL], "tool_choice": "required"},
        "schema": {"text": {"format": FLAT_FORMAT}},
        "system": {"input": [DEVELOPER, ITEM]},
        "effort": {"reasoning": {"effort": "low", "summary": "auto"}, "max_output_tokens": 9000},
        "budget": {"reasoning": {"effort": "medium", "summary": "auto"}, "max_output_tokens": 9000},
    },
    "openrouter": {
        **{name: said for name, said in SAID.items() if "model" not in said},
        "stop": {"stop": ["END"]},
        "max_completion_tokens": {"max_tokens": 77},
        "seed": {},
        "frequency_penalty": {},
        "repetition_penalty": {},
        "user": {"user": "u-1"},
        "tier": {},
        "system": {"messages": [SYSTEM, QUESTION]},
        "effort": {"reasoning": {"max_tokens": 2048}, "max_tokens": 9000},
        "budget": {"reasoning": {"max_tokens": 5000}, "max_tokens": 9000},
    },
}
"""The members that they change in the plain body for the provider, by dialect."""

HOSTILE = tuple(
    name
    for names in (
        "api_base base_url api_key api_version api_type organization project headers",
        "extra_headers extra_body extra_query default_headers timeout max_retries",
        "mock_response user_config litellm_params guardrails callbacks",
        "webhook webhooks webhook_url callback_url __proto__ constructor prototype",
        "provider providers models route routes plugins transforms preset fallbacks engine",
        "deployment store background metadata conversation previous_response_id",
        "web_search_options service_tier Model MODEL Service_Tier num_predict best_of",
        "stream_Options Usage",
    )
    for name in names.split()
)
"""Names that could change where a call goes, what it costs or what is kept."""

VALUES = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text(max_size=8) | st.just("http://127.0.0.1:9/"),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(HOSTILE), inner, max_size=2)
    ),
    max_leaves=4,
)
TYPED: Mapping[str, st.SearchStrategy[Any]] = {
    "metadata": st.dictionaries(st.sampled_from(HOSTILE), st.text(max_size=8), max_size=2),
    "service_tier": st.sampled_from(["flex", "scale"]),
    "extra_body": VALUES.filter(lambda value: not isinstance(value, dict)),
}
"""Names whose values have a type. Members of `extra_body` are fields like others."""


@st.composite
def hostile(draw: st.DrawFn) -> Json:
    """Return fields that no caller should be able to set."""
    names = draw(st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=5, unique=True))
    return {name: draw(TYPED.get(name, VALUES)) for name in names}


async def sent(
    stand: DialectStand, fields: Json, headers: Mapping[str, str] | None = None
) -> Request:
    """Return the body that the provider gets for a request with these fields and headers."""
    request = {"model": MODEL, "messages": [QUESTION]} | fields
    url = f"{stand.gateway.base_url}/chat/completions"
    before = len(stand.provider.requests)
    async with stand.gateway.http.post(url, json=request, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        await answer.read()
    (made,) = stand.provider.requests[before:]
    return made


def plain(stand: DialectStand) -> Json:
    """The body for a plain question."""
    return {"model": UPSTREAM_MODELS[stand.dialect]} | PLAIN[stand.dialect]


async def test_a_plain_question_adds_only_required_fields(stand: DialectStand) -> None:
    """A question without parameters is sent with what the provider requires, and no more."""
    stand.provider.say(GREETING)

    assert (await sent(stand, {})).json() == plain(stand)
    streamed = await sent(stand, {"stream": True})
    assert streamed.json() == plain(stand) | STREAMED[stand.dialect]


@pytest.mark.parametrize("case", SAID)
async def test_a_parameter_is_translated_or_left_out(stand: DialectStand, case: str) -> None:
    """A parameter is sent in the provider's form, or not at all; nothing else changes."""
    stand.provider.say(GREETING)

    body = (await sent(stand, SAID[case])).json()

    kept = {"stream", "stream_options"}
    expected = plain(stand) | HEARD[stand.dialect][case]
    assert {key: body[key] for key in body.keys() - kept} == {
        key: expected[key] for key in expected.keys() - kept
    }


async def test_members_of_extra_body_are_fields(stand: DialectStand) -> None:
    """A member that is not sent from the body is not sent from `extra_body` either."""
    stand.provider.say(GREETING)
    fields = dict.fromkeys(HOSTILE, "x") | SAID["system"] | {"temperature": 0.5}
    fields = {name: value for name, value in fields.items() if name not in TYPED}
    messages = fields.pop("messages")

    nested = (await sent(stand, {"messages": messages, "extra_body": fields})).json()

    assert nested == (await sent(stand, {"messages": messages, **fields})).json()
    if stand.dialect != "openai-responses":  # Its model takes none.
        assert nested["temperature"] == 0.5


async def test_only_the_channels_key_is_sent(stand: DialectStand) -> None:
    """The channel's key is sent, and none of the caller's headers."""
    stand.provider.say(GREETING)
    callers = {
        "OpenAI-Organization": "org-1",
        "Cookie": "session=1",
        "X-Forwarded-For": "10.0.0.1",
        "anthropic-beta": "everything",
        "HTTP-Referer": "https://example.com",
        "X-Api-Key": "sk-callers",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }

    request = await sent(stand, {}, callers)

    usual = {"host", "content-type", "content-length", "accept", "accept-encoding", "user-agent"}
    secret = (
        {"x-api-key": PROVIDER_KEY, "anthropic-version": "2023-06-01"}
        if stand.dialect == "anthropic"
        else {"authorization": f"Bearer {PROVIDER_KEY}"}
    )
    theirs = {name: value for name, value in request.headers.items() if name not in usual}
    assert theirs.pop("connection", "keep-alive") == "keep-alive"
    assert theirs == secret
    assert stand.gateway.key.encode() not in request.body


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=hostile())
async def test_fields_for_routing_and_billing_are_not_forwarded(
    stand: DialectStand, fields: Json
) -> None:
    """Fields that choose a model, a price, a place or a URL change nothing at all."""
    stand.provider.say(GREETING)
    usual = await sent(stand, {})

    found = await sent(stand, fields)

    assert found.json() == usual.json()
    assert (found.method, found.path) == (usual.method, usual.path)
    assert found.headers == usual.headers


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=hostile())
async def test_nested_fields_for_routing_are_not_forwarded(
    stand: DialectStand, fields: Json
) -> None:
    """They are within a message, a tool, an image or a format."""
    link = {"url": "https://example.com/a.png"}
    picture = {"type": "image_url", "image_url": link}
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hi"}, picture]}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]
    stand.provider.say(GREETING)
    usual = await sent(stand, {"messages": messages, "tools": tools})

    picture = fields | {"type": "image_url", "image_url": fields | link}
    messages = [
        fields | {"role": "user", "content": [fields | {"type": "text", "text": "Hi"}, picture]}
    ]
    function = fields | {"name": "f", "parameters": SCHEMA}
    tools = [fields | {"type": "function", "function": function}]
    form = fields | {"type": "text"}
    found = await sent(stand, {"messages": messages, "tools": tools, "response_format": form})

    assert found.json() == usual.json()
