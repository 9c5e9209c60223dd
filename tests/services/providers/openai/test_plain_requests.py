"""Plain requests are what the encoder of all requests makes of them."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from services.capabilities import shipped_families
from services.config import Quirks
from services.domain.conversation import Message, Role, TextPart
from services.domain.plain_texts import PLAIN_PARAMETERS, plain_texts
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, PlainRequest, Target
from services.providers.openai.plain_requests import plain_requests
from services.providers.registry import DIALECTS, PLAIN_ENCODERS
from tests.services.providers.targets import target_of

VALUES: dict[str, tuple[Any, ...]] = {
    "max_tokens": (1, 100, 8193, 200_000, 2_000_000),
    "temperature": (0.0, 0.7, 1.0, 2.0),
    "top_p": (0.0, 0.9, 1.0),
    "top_k": (0, 40),
    "min_p": (0.0, 0.1),
    "frequency_penalty": (-2.0, 0.0, 1.5),
    "presence_penalty": (-2.0, 0.0, 1.5),
    "repetition_penalty": (0.0, 1.0, 1.1),
    "seed": (0, 7),
    "stop": (["\n"], ["a", "b", "c", "d"], ["a", "b", "c", "d", "e"]),
    "user": ("someone",),
}
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant")
QUIRKS = (
    Quirks(),
    Quirks(drops=("temperature", "seed", "max_tokens"), stream_usage=False),
    Quirks(renames={"max_tokens": "max_completion_tokens", "top_k": "topK", "seed": "random_seed"}),
    Quirks(renames={"reasoning": "reasoning_content"}, cache_control=True),
)
PLAIN = ChatCompletionSpec(
    model="m", messages=[Message(role="user", content=[TextPart(text="Hi")])], max_tokens=100
)


def models(dialect: str) -> list[str]:
    """Return a model of each shipped family that a dialect may have."""
    return [
        pattern.replace("*", "1")
        for family in shipped_families()
        if family.dialect in {"", dialect}
        for pattern in family.match
    ]


def random_plain(chance: random.Random) -> ChatCompletionSpec:
    """Return any plain request, most of which have few parameters."""
    names = chance.sample(sorted(VALUES), chance.choice((0, 1, 2, len(VALUES))))
    messages = [
        Message(
            role=chance.choice(ROLES), content=[TextPart(text=chance.choice(("", "é\u2028 a")))]
        )
        for _ in range(chance.randint(1, 4))
    ]
    fields = {name: chance.choice(VALUES[name]) for name in names}
    return ChatCompletionSpec(model="m", messages=messages, **fields)


def differs(
    spec: ChatCompletionSpec, target: Target, *, stream: bool, limits_output: bool = False
) -> bool | None:
    """Return whether a plain request differs from that of all. None: it is made by the latter."""
    dialect = target.channel.dialect
    encoder, texts, notes = PLAIN_ENCODERS[dialect](target), plain_texts(spec), Notes()
    assert texts is not None
    if encoder is None:
        return None
    asked = PlainRequest(spec, texts, limits_output)
    made = encoder.encode(asked, notes, stream=stream)
    if made is None:
        return None
    limited, noted = replace(target, limits_output=limits_output), Notes()
    expected = DIALECTS[dialect].encode(spec, limited, noted, stream=stream)
    return (made, notes.all) != (expected, noted.all)


def test_values_are_given_for_all_plain_parameters() -> None:
    """A parameter that becomes plain is tested."""
    assert VALUES.keys() == {"max_tokens", *PLAIN_PARAMETERS}


@pytest.mark.parametrize("dialect", sorted(PLAIN_ENCODERS))
def test_plain_request_is_that_of_the_encoder_of_all_requests(dialect: str) -> None:
    """For all shipped families of models, and channels with quirks: bytes, notes and estimate."""
    chance = random.Random(15)  # noqa: S311 - repeatable, no secret
    outcomes = []
    for model in models(dialect):
        for quirks in QUIRKS:
            target = target_of(model, dialect, quirks=quirks)
            for stream, limits in product((True, False), repeat=2):
                spec = random_plain(chance)
                outcome = differs(spec, target, stream=stream, limits_output=limits)
                assert not outcome, (model, quirks, spec)
                outcomes.append(outcome)

    # Both encoders have their share: few parameters are refused, and many models know no order.
    assert outcomes.count(False) > len(outcomes) / 8
    assert outcomes.count(None) > len(outcomes) / 10


@pytest.mark.parametrize("dialect", sorted(PLAIN_ENCODERS))
@pytest.mark.parametrize("name", sorted(VALUES))
def test_model_without_restrictions_gets_each_parameter_in_a_plain_request(
    name: str, dialect: str
) -> None:
    """The short way is the usual one."""
    spec = ChatCompletionSpec(model="m", messages=PLAIN.messages, **{name: VALUES[name][0]})
    assert differs(spec, target_of("m", dialect), stream=False) is False


def test_model_that_is_made_to_reason_has_no_plain_requests() -> None:
    """Its name asks for what other requests have a field for."""
    assert plain_requests(target_of("m", "openai", thinking_by_name=True)) is None


def test_encoder_of_plain_requests_keeps_no_target_apart() -> None:
    """Targets that differ in their encoder alone are equal."""
    target = target_of("m", "openai")
    assert replace(target, plain=plain_requests(target)) == target
