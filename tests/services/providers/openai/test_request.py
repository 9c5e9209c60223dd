"""Requests to OpenAI-compatible providers: what is sent, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest

from services.capabilities import Capabilities, lookup
from services.config import Quirks
from services.domain.conversation import (
    ImagePart,
)
from services.domain.error_reason import ErrorReason
from services.domain.spec import (
    ResponseFormat,
    Thinking,
    ToolChoice,
)
from services.errors import Failure
from services.providers.base import Notes
from services.providers.openai import DIALECT
from tests.services.providers.openai.requests import FUNCTION, encode, message, spec, target


def test_parameters_that_the_caller_left_out_are_not_sent() -> None:
    """The provider's defaults apply."""
    body, notes = encode(spec())

    assert body == {
        "model": "upstream-name",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert not notes


PARAMETERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "max_tokens": ({"max_tokens": 50}, {"max_tokens": 50}),
    "temperature": ({"temperature": 0.0}, {"temperature": 0.0}),
    "top_p": ({"top_p": 0.5}, {"top_p": 0.5}),
    "top_k": ({"top_k": 5}, {"top_k": 5}),
    "min_p": ({"min_p": 0.1}, {"min_p": 0.1}),
    "frequency_penalty": ({"frequency_penalty": -1.5}, {"frequency_penalty": -1.5}),
    "presence_penalty": ({"presence_penalty": 1.5}, {"presence_penalty": 1.5}),
    "repetition_penalty": ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
    "seed": ({"seed": 0}, {"seed": 0}),
    "stop": ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
    "logit_bias": ({"logit_bias": {5: -100.0}}, {"logit_bias": {"5": -100.0}}),
    "n": ({"n": 2}, {"n": 2}),
    "logprobs": ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    "user": ({"user": "u"}, {"user": "u"}),
    "verbosity": ({"verbosity": "low"}, {"verbosity": "low"}),
    "reasoning_effort": (
        {"reasoning_effort": "high"},
        {"reasoning_effort": "high"},
    ),
    "json_object": (
        {"response_format": ResponseFormat(type="json_object")},
        {"response_format": {"type": "json_object"}},
    ),
    "text": ({"response_format": ResponseFormat(type="text")}, {}),
    "json_schema": (
        {
            "response_format": ResponseFormat(
                type="json_schema",
                name="s",
                description="d",
                schema_json=b'{"type":"object"}',
                strict=True,
            )
        },
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "s",
                    "description": "d",
                    "schema": {"type": "object"},
                    "strict": True,
                },
            }
        },
    ),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_sent_in_openais_form(name: str) -> None:
    """Each one, to an unknown model."""
    given_fields, expected = PARAMETERS[name]
    plain, _ = encode(spec())
    body, notes = encode(spec(**given_fields))

    assert body == plain | expected
    assert not notes


FAMILIES = ["gpt-4o", "gpt-5.1", "o3", "some-model", "claude-sonnet-4-5"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["temperature", "top_k", "min_p", "seed", "stop", "logit_bias"])
def test_hints_are_sent_or_noted(family: str, name: str) -> None:
    """A hint that a model family lacks is dropped with a note, or refused in strict mode."""
    to = target(lookup(family, None, "openai"))
    wanted = spec(**PARAMETERS[name][0])
    body, notes = encode(wanted, to)

    assert (name in body) != (notes.get(name) == "dropped")
    if name in notes:
        with pytest.raises(Failure):
            DIALECT.encode(wanted, to, Notes(strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_limits_have_the_name_that_the_model_knows(family: str) -> None:
    """`max_tokens` is sent under one name."""
    capabilities = lookup(family, None, "openai")
    body, _ = encode(spec(max_tokens=50), target(capabilities))

    names = {"max_tokens", "max_completion_tokens"} & body.keys()
    assert names == {capabilities.max_tokens_parameter}


def test_quirks_of_a_channel_are_applied() -> None:
    """Dropped parameters, other names, and streams without usage."""
    quirks = Quirks(
        drops=("seed",), renames={"repetition_penalty": "repeat_penalty"}, stream_usage=False
    )
    body, notes = encode(spec(seed=1, repetition_penalty=1.5), target(quirks=quirks))

    assert "seed" not in body
    assert notes == {"seed": "dropped"}
    assert body["repeat_penalty"] == 1.5
    assert "stream_options" not in body


@pytest.mark.parametrize(
    ("switch", "wanted", "expected"),
    [
        ("thinking", {"mode": "enabled"}, {"thinking": {"type": "enabled"}}),
        ("thinking", {"mode": "disabled"}, {"thinking": {"type": "disabled"}}),
        ("enable_thinking", {"mode": "enabled"}, {"enable_thinking": True}),
        ("enable_thinking", {"mode": "disabled"}, {"enable_thinking": False}),
        ("none", {"mode": "enabled"}, {}),
    ],
)
def test_switches_of_reasoning(
    switch: Any, wanted: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Reasoning is switched by the parameter that the model's row names."""
    default: Any = "off" if wanted["mode"] == "enabled" else "on"
    able = Capabilities(
        thinking="effort", thinking_default=default, thinking_switch=switch, efforts=()
    )
    plain, _ = encode(spec(), target(able))
    body, _ = encode(spec(thinking=Thinking(**wanted)), target(able))

    assert body == plain | expected


@pytest.mark.parametrize("model", ["gpt-5.4", "gpt-5.5", "gpt-5.6-terra", "gpt-6.1-sol"])
def test_tools_come_with_effort_none(model: str) -> None:
    """Whatever the default of the model is: the API takes tools with no other effort."""
    to = target(lookup(model, None, "openai"))
    for asked in ({}, {"reasoning_effort": "none"}, {"reasoning_effort": "high"}):
        body, _ = encode(spec(tools=[FUNCTION], **asked), to)
        assert body["reasoning_effort"] == "none"
    assert "reasoning_effort" not in encode(spec(), to)[0]


def test_a_reasoning_budget_is_sent_where_the_model_takes_one() -> None:
    """In the parameter of the model's row."""
    for switch, expected in (
        ("reasoning_effort", {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
        ("enable_thinking", {"enable_thinking": True, "thinking_budget": 2000}),
    ):
        able = Capabilities(thinking="budget", thinking_switch=switch)  # type: ignore[arg-type]
        body, _ = encode(spec(thinking=Thinking(budget_tokens=2000)), target(able))
        assert expected.items() <= body.items()


@pytest.mark.parametrize(
    ("capabilities", "wanted", "param"),
    [
        (Capabilities(n=False), {"n": 2}, "n"),
        (Capabilities(logprobs=False), {"logprobs": True}, "logprobs"),
        (Capabilities(tools=False), {"tools": [FUNCTION]}, "tools"),
        (
            Capabilities(forced_tool_choice=False),
            {
                "tools": [FUNCTION],
                "tool_choice": ToolChoice(mode="required"),
            },
            "tool_choice",
        ),
        (Capabilities(structured_output=False), PARAMETERS["json_schema"][0], "response_format"),
        (
            Capabilities(images="no"),
            {"messages": [message(ImagePart(uri="https://a/b"))]},
            "messages",
        ),
    ],
)
def test_features_that_a_model_lacks_are_refused(
    capabilities: Capabilities, wanted: dict[str, Any], param: str
) -> None:
    """A program relies on them, so that they are never left out."""
    with pytest.raises(Failure) as refused:
        encode(spec(**wanted), target(capabilities))
    assert refused.value.reason == ErrorReason.UNSUPPORTED_FEATURE
    assert refused.value.param == param


def test_answers_with_audio_are_not_streamed() -> None:
    """Providers encode audio in another way in streams."""
    wanted = spec(extra_json=b'{"modalities":["audio"],"audio":{"voice":"v"}}')
    body, _ = encode(wanted, target(pass_through=("modalities", "audio")))

    assert body["stream"] is False
    assert "stream_options" not in body


def test_a_key_is_a_bearer_token() -> None:
    """Local servers without a key get no header."""
    assert DIALECT.auth_headers("k") == {"authorization": "Bearer k"}
    assert DIALECT.auth_headers("") == {}
