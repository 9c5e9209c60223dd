from __future__ import annotations

from typing import Any

import pytest

from services.capabilities import CapabilityOverrides
from services.config import Quirks
from services.domain.conversation import ImagePart, Message
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec, ResponseFormat, Tool
from services.errors import Failure
from services.providers.base import Notes, Target
from services.providers.translate.features import require_features
from services.providers.translate.output_limits import output_limit, output_limit_name
from services.providers.translate.parameters import PARAMETERS, accepted
from services.providers.translate.raw_json import raw_object
from tests.services.providers.targets import target_of, told

ALL = {parameter.name: parameter.name for parameter in PARAMETERS}
SET: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.25,
    "top_k": 7,
    "top_a": 0.5,
    "min_p": 0.125,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "repetition_penalty": 1.5,
    "seed": 42,
    "stop": ["END"],
    "logit_bias": {50256: -100.0},
    "parallel_tool_calls": False,
    "verbosity": "low",
    "service_tier": "flex",
    "user": "u-1",
    "prompt_cache_key": "k",
    "metadata": {"team": "a"},
    "n": 2,
    "logprobs": True,
    "top_logprobs": 3,
}
SENT = SET | {"logit_bias": {"50256": -100.0}, "verbosity": "low"}


def spec_with(**fields: Any) -> ChatCompletionSpec:
    """A spec with a tool, so that everything about tools has a meaning."""
    return ChatCompletionSpec(model="m", tools=[Tool(name="f")], **fields)


def sent(target: Target, notes: Notes, **fields: Any) -> dict[str, object]:
    """What is sent of a spec with these fields in a dialect that has everything."""
    return accepted(spec_with(**fields), ALL, target, notes)


def test_every_parameter_is_covered() -> None:
    """The cases of this file name each parameter of the table."""
    assert set(SET) == set(ALL)


def test_unset_is_not_sent() -> None:
    """What the caller left to the provider is not sent, and leaves no note."""
    notes = Notes()
    assert sent(target_of("unknown", "openai"), notes) == {}
    assert not notes.all


@pytest.mark.parametrize("name", ALL)
def test_passes_everything_to_unknown_models(name: str) -> None:
    """A model about which nothing is known gets each parameter as it is."""
    notes = Notes()
    assert sent(target_of("unknown", "openai"), notes, **{name: SET[name]}) == {name: SENT[name]}
    assert not notes.all


@pytest.mark.parametrize("name", ALL)
def test_drops_what_the_channel_refuses(name: str) -> None:
    """A channel's quirk drops each hint with a note, and refuses what programs rely on."""
    target, notes = target_of("unknown", "openai", quirks=Quirks(drops=(name,))), Notes()
    essential = next(p.essential for p in PARAMETERS if p.name == name)
    if essential:
        with pytest.raises(Failure) as refused:
            sent(target, notes, **{name: SET[name]})
        assert refused.value.reason == ErrorReason.UNSUPPORTED_FEATURE
        assert refused.value.param == name
    else:
        assert sent(target, notes, **{name: SET[name]}) == {}
        assert told(notes) == {name: "dropped"}


@pytest.mark.parametrize("name", ALL)
def test_strict_refuses_what_would_be_dropped(name: str) -> None:
    """In strict mode a parameter that the dialect lacks refuses the call, by name."""
    spec = spec_with(**{name: SET[name]})
    with pytest.raises(Failure) as refused:
        accepted(spec, {}, target_of("unknown", "openai"), Notes(strict=True))
    assert (refused.value.param, refused.value.reason) == (name, "UNSUPPORTED_FEATURE")


@pytest.mark.parametrize("parameter", [p for p in PARAMETERS if p.neutral is not None])
def test_neutral_values_vanish_silently(parameter: Any) -> None:
    """A value that changes nothing is not worth a note, nor a refusal in strict mode."""
    spec = spec_with(**{parameter.name: parameter.neutral})
    assert accepted(spec, {}, target_of("unknown", "openai"), Notes(strict=True)) == {}


def test_renames() -> None:
    """A channel's own name wins over the dialect's."""
    target = target_of("unknown", "openai", quirks=Quirks(renames={"top_k": "topk"}))
    given = accepted(spec_with(top_k=3, seed=1), {"top_k": "k", "seed": "s"}, target, Notes())
    assert given == {"topk": 3, "s": 1}


def test_moves_numbers_into_range() -> None:
    """A temperature above the model's highest becomes the highest, with a note."""
    notes = Notes()
    assert sent(target_of("claude-sonnet-4-5"), notes, temperature=1.7) == {"temperature": 1.0}
    assert told(notes) == {"temperature": "clamped"}


@pytest.mark.parametrize(
    ("given", "expected", "noted"),
    [
        ({"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5}, {"top_p"}),
        ({"temperature": 1.0, "top_p": 0.5}, {"top_p": 0.5}, set()),
        ({"temperature": 0.5, "top_p": 1.0}, {"temperature": 0.5}, set()),
        ({"top_p": 0.5}, {"top_p": 0.5}, set()),
    ],
)
def test_pairs(given: dict[str, float], expected: dict[str, float], noted: set[str]) -> None:
    """Of two that exclude each other the one that says something is kept."""
    notes = Notes()
    assert sent(target_of("claude-sonnet-4-5"), notes, **given) == expected
    assert set(told(notes)) == noted


def test_reasoning_narrows_sampling() -> None:
    """A Claude that reasons takes no other temperature, no top_k, and a high top_p."""
    notes = Notes()
    spec = spec_with(temperature=0.5, top_k=3, top_p=0.5)
    names = {name: name for name in ("temperature", "top_k", "top_p")}
    given = accepted(spec, names, target_of("claude-opus-4-6"), notes, thinking=True)
    assert given == {"top_p": 0.95}
    assert told(notes) == {
        "temperature": "dropped",
        "top_k": "dropped",
        "top_p": "clamped",
    }


def test_parallel_calls_need_tools() -> None:
    """Without tools nothing is said about how many to call: providers refuse it."""
    spec = ChatCompletionSpec(model="m", parallel_tool_calls=True)
    assert accepted(spec, ALL, target_of("unknown", "openai"), Notes()) == {}


def test_output_limit() -> None:
    """More tokens than the model can write become what it can, with a note."""
    target, notes = target_of("claude-3-5-haiku-latest"), Notes()
    assert output_limit(spec_with(), target, notes) is None
    assert output_limit(spec_with(max_tokens=5), target, notes) == 5
    assert not notes.all
    assert output_limit(spec_with(max_tokens=10_000), target, notes) == 8192
    assert told(notes) == {"max_tokens": "clamped"}


def test_output_limit_name() -> None:
    """Reasoning models call the limit otherwise; a channel's quirk has the last word."""
    assert output_limit_name(target_of("gpt-4o", "openai")) == "max_tokens"
    assert output_limit_name(target_of("o3", "openai")) == "max_completion_tokens"
    quirks = Quirks(renames={"max_tokens": "max_new_tokens"})
    assert output_limit_name(target_of("o3", "openai", quirks=quirks)) == "max_new_tokens"


@pytest.mark.parametrize(
    ("overrides", "fields", "param"),
    [
        ({"tools": False}, {"tools": [Tool(name="f")]}, "tools"),
        (
            {"structured_output": False},
            {"response_format": ResponseFormat(type="json_schema")},
            "response_format",
        ),
        (
            {"images": "no"},
            {
                "messages": [
                    Message(role="user", content=[ImagePart(uri="https://example.com/a.png")])
                ]
            },
            "messages",
        ),
    ],
)
def test_refuses_features(overrides: dict[str, Any], fields: dict[str, Any], param: str) -> None:
    """Tools, schemas and pictures are never left out: a model that lacks them is an error."""
    spec = ChatCompletionSpec(model="m", **fields)
    require_features(spec, target_of("unknown", "openai"))
    lacking = target_of("unknown", "openai", overrides=CapabilityOverrides(**overrides))
    with pytest.raises(Failure) as refused:
        require_features(spec, lacking)
    assert (refused.value.param, refused.value.reason) == (param, "UNSUPPORTED_FEATURE")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{}, "model": "x"', b"{", b'{"a": "\xff"}', b"[" * 9999]
)
def test_raw_objects_are_checked(data: bytes) -> None:
    """Bytes that are no single JSON object cannot get into a body."""
    with pytest.raises(Failure) as refused:
        raw_object(data, "tools")
    assert refused.value.reason == ErrorReason.INVALID_FIELD
