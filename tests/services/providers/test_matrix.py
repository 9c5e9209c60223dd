"""Each parameter, in each dialect, for each family of models: the request's body, and the notes.

The table pins what the encoders do, so that a change of it is seen and has to be meant. It
was filled from their output. The rows of Claude and of OpenAI's reasoning models were then
held against what those providers are known to refuse; the others were not, and say no more
than `capabilities.toml` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from services.capabilities import lookup
from services.config import ChannelConfig
from services.domain.conversation import Message, TextPart
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.base import Notes, Target
from services.providers.registry import DIALECTS

PARAMETERS: Mapping[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "seed": 7,
    "top_k": 40,
    "top_a": 0.2,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "stop": ["END"],
    "max_tokens": 2000,
    "logit_bias": {7: 1.0},
    "user": "u",
    "n": 2,
    "logprobs": True,
    "reasoning_effort": "low",
    "verbosity": "low",
    "service_tier": "flex",
    "metadata": {"a": "b"},
}
"""All parameters, with values that are no provider's default."""

AS_IT_IS: Mapping[str, Any] = {"logit_bias": {"7": 1.0}, "verbosity": "low"}
"""Values whose form in JSON differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Expected handling of the parameters. Unlisted ones are sent unchanged."""

    dropped: str = ""
    """Not sent, with a note; refused in strict mode."""
    refused: str = ""
    """Always refused."""
    said: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Sent in another form: fields that are added to the request, or changed."""
    mapped: str = ""
    """Names in `said` that get a note."""


HINTS = "temperature top_p top_k"
PENALTIES = "frequency_penalty presence_penalty"
OPEN_WEIGHTS = "top_k top_a min_p repetition_penalty"
# Channels pass these on only where their row names them.
KEPT = "service_tier metadata"

CLAUDE = f"{PENALTIES} seed top_a min_p repetition_penalty logit_bias verbosity {KEPT}"
ANTHROPIC: Mapping[str, dict[str, Any]] = {
    "stop": {"stop_sequences": ["END"]},
    "user": {"metadata": {"user_id": "u"}},
}
BUDGET = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
LOW_EFFORT = {"output_config": {"effort": "low"}}
SHOWN = {"thinking": {"type": "adaptive", "display": "summarized"}}
BY_EFFORT = {"reasoning_effort": {"reasoning_effort": "low"}}
ROUTED = {"reasoning_effort": {"reasoning": {"effort": "low"}}}
BY_NEW_NAME = {"max_tokens": {"max_completion_tokens": 2000}}

MATRIX: Mapping[tuple[str, str], Family] = {
    ("anthropic", "claude-sonnet-4-5"): Family(
        dropped=CLAUDE,
        refused="n logprobs",
        said={**ANTHROPIC, "reasoning_effort": BUDGET},
        mapped="reasoning_effort",
    ),
    ("anthropic", "claude-opus-4-5"): Family(
        dropped=CLAUDE,
        refused="n logprobs",
        said={**ANTHROPIC, "reasoning_effort": BUDGET},
        mapped="reasoning_effort",
    ),
    ("anthropic", "claude-opus-4-6"): Family(
        dropped=CLAUDE,
        refused="n logprobs",
        said={**ANTHROPIC, "reasoning_effort": {"thinking": {"type": "adaptive"}} | LOW_EFFORT},
    ),
    ("anthropic", "claude-opus-4-7"): Family(
        dropped=f"{CLAUDE} {HINTS}",
        refused="n logprobs",
        said={**ANTHROPIC, "reasoning_effort": SHOWN | LOW_EFFORT},
    ),
    ("anthropic", "claude-sonnet-5"): Family(
        dropped=f"{CLAUDE} {HINTS}",
        refused="n logprobs",
        said={**ANTHROPIC, "reasoning_effort": SHOWN | LOW_EFFORT},
    ),
    ("openai", "gpt-4o"): Family(
        dropped=f"{OPEN_WEIGHTS} reasoning_effort verbosity {KEPT}",
    ),
    ("openai", "gpt-5.1"): Family(
        dropped=f"{OPEN_WEIGHTS} stop logit_bias {KEPT}", said={**BY_EFFORT, **BY_NEW_NAME}
    ),
    ("openai", "o3"): Family(
        dropped=f"{HINTS} {PENALTIES} {OPEN_WEIGHTS} stop logit_bias verbosity {KEPT}",
        refused="logprobs",
        said={**BY_EFFORT, **BY_NEW_NAME},
    ),
    ("openai", "deepseek-chat"): Family(dropped=f"top_a reasoning_effort {KEPT}"),
    ("openai", "grok-4"): Family(dropped=f"{PENALTIES} top_a stop reasoning_effort {KEPT}"),
    ("openai", "some-model"): Family(dropped=f"top_a {KEPT}", said=BY_EFFORT),
    ("openrouter", "anthropic/claude-sonnet-4.5"): Family(
        dropped=CLAUDE,
        refused="n logprobs",
        said={"reasoning_effort": {"reasoning": {"max_tokens": 2048}}},
        mapped="reasoning_effort",
    ),
    ("openrouter", "anthropic/claude-opus-4.7"): Family(
        dropped=f"{CLAUDE} {HINTS}", refused="n logprobs", said=ROUTED
    ),
    ("openrouter", "openai/gpt-4o"): Family(
        dropped=f"{OPEN_WEIGHTS} reasoning_effort verbosity {KEPT}"
    ),
    ("openrouter", "openai/gpt-5.1"): Family(
        dropped=f"{OPEN_WEIGHTS} stop logit_bias {KEPT}", said={**ROUTED, **BY_NEW_NAME}
    ),
    ("openrouter", "deepseek/deepseek-r1"): Family(dropped=f"reasoning_effort {KEPT}"),
    ("openrouter", "google/gemini-2.5-pro"): Family(dropped=KEPT, said=ROUTED),
    ("openrouter", "some/model"): Family(dropped=KEPT, said=ROUTED),
}


def encoded(
    dialect: str, model: str, *, strict: bool = False, **parameters: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """The request's body, and the notes."""
    target = Target(
        channel=ChannelConfig(name="c", dialect=dialect),
        model=model,
        public_model="public",
        capabilities=lookup(model, None, dialect),
    )
    hello = Message(role="user", content=[TextPart(text="Hello")])
    spec = ChatCompletionSpec(model="public", messages=[hello], **parameters)
    notes = Notes(strict=strict)
    body = msgspec.json.decode(DIALECTS[dialect].encode(spec, target, notes).body)
    return body, {note.param: note.action for note in notes.all}


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize(("dialect", "model"), MATRIX)
def test_parameter(dialect: str, model: str, name: str) -> None:
    """A parameter is sent in the form of the table. An unsent one gets a note, or is refused."""
    family = MATRIX[dialect, model]
    wanted = {name: PARAMETERS[name]}
    if name in family.refused.split():
        with pytest.raises(Failure) as refused:
            encoded(dialect, model, **wanted)
        assert (refused.value.reason, refused.value.param) == ("UNSUPPORTED_FEATURE", name)
        return
    plain, _ = encoded(dialect, model)
    body, notes = encoded(dialect, model, **wanted)

    if name in family.dropped.split():
        assert (body, notes) == (plain, {name: "dropped"})
        with pytest.raises(Failure) as refused:
            encoded(dialect, model, strict=True, **wanted)
        assert refused.value.param == name
        return
    said = family.said.get(name, {name: AS_IT_IS.get(name, PARAMETERS[name])})
    told = {name: "mapped"} if name in family.mapped.split() else {}
    assert (body, notes) == (plain | said, told)


def test_every_parameter_has_a_row() -> None:
    """All names in the table are names of parameters."""
    for family in MATRIX.values():
        named = {*family.dropped.split(), *family.refused.split(), *family.said}
        assert named <= PARAMETERS.keys()
