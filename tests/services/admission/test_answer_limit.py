from __future__ import annotations

from dataclasses import replace
from itertools import product

import msgspec
import pytest

from services.admission.answer_limit import answer_limit
from services.admission.call_plan import AnswerBound
from services.capabilities import lookup
from services.config import ChannelConfig
from services.domain.conversation import Message, TextPart
from services.domain.spec import ChatCompletionSpec, Effort, Thinking
from services.providers.base import Notes, Target
from services.providers.registry import DIALECTS

MODELS = (
    "claude-3-haiku", "claude-3-7-sonnet", "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-5",
    "gpt-4o", "gpt-5", "gpt-5.1", "o3", "gemini-2.5-pro", "deepseek-v3.1", "unheard-of",
)  # fmt: skip
EFFORTS_ASKED: tuple[Effort | None, ...] = (None, "none", "minimal", "low", "high", "max")
LIMITS = (None, 1, 20, 1024, 1025, 5_000, 500_000, 2**31 - 1)
SENT = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def target(dialect: str, model: str, *, by_name: bool = False) -> Target:
    """Return a model at a channel of that dialect."""
    channel = ChannelConfig(
        name="c", dialect=dialect, base_url="http://x", models={"public/m": model}
    )
    return Target(
        channel=channel,
        model=model,
        public_model="public/m",
        capabilities=lookup(model, dialect=dialect),
        thinking_by_name=by_name,
    )


def asked(effort: Effort | None, budget: int | None, max_tokens: int | None) -> ChatCompletionSpec:
    """Return a request with these wishes."""
    return ChatCompletionSpec(
        model="public/m",
        messages=[Message(role="user", content=[TextPart(text="Hello")])],
        n=1,
        reasoning_effort=effort or "",
        thinking=Thinking(budget_tokens=budget) if budget else None,
        max_tokens=max_tokens,
    )


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("limits_output", [False, True])
def test_it_bounds_the_limit_that_is_sent(
    dialect: str, model: str, by_name: bool, limits_output: bool
) -> None:
    """For every effort, budget and `max_tokens`; where money is limited, a limit is always sent."""
    place = replace(target(dialect, model, by_name=by_name), limits_output=limits_output)
    for effort, budget, limit in product(EFFORTS_ASKED, (None, 1024, 10_000), LIMITS):
        spec = asked(effort, budget, limit)
        sent = msgspec.json.decode(DIALECTS[dialect].encode(spec, place, Notes()).body)
        sent_limit = next((sent[name] for name in SENT if name in sent), None)

        held = answer_limit(spec, place)

        if limits_output or sent_limit is not None:
            assert held == sent_limit, (effort, budget, limit)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_it_bounds_the_default_limit_of_a_row(dialect: str) -> None:
    """A row may have a default below that of other models, which is sent and held."""
    place = replace(target(dialect, "unheard-of"), limits_output=True)
    place = replace(place, capabilities=replace(place.capabilities, default_max_tokens=1_000))

    sent = msgspec.json.decode(
        DIALECTS[dialect].encode(asked(None, None, None), place, Notes()).body
    )

    assert answer_limit(asked(None, None, None), place) == 1_000
    assert [sent[name] for name in SENT if name in sent] == [1_000]


def test_a_minimum_of_reasoning_is_held_too() -> None:
    """One token is asked for, and 1,025 are sent."""
    assert answer_limit(asked("high", None, 1), target("anthropic", "claude-sonnet-4-5")) == 1025


def test_all_choices_and_targets_are_held() -> None:
    """The most that any target may be sent, for every choice."""
    targets = [target("openai", "gpt-4o"), target("anthropic", "claude-sonnet-4-5")]
    spec = msgspec.structs.replace(asked("high", None, 1), n=3)

    assert AnswerBound.of(targets).tokens(spec) == 3 * 1025


@pytest.mark.parametrize("by_name", [False, True])
def test_a_bound_is_the_highest_limit_of_its_targets(by_name: bool) -> None:
    """Of one model, or of two at any two dialects, for every effort, budget and `max_tokens`."""
    places = [target(dialect, model, by_name=by_name) for dialect in DIALECTS for model in MODELS]
    for first, second in zip(places, [*places[5:], *places[:5]], strict=True):
        bound = AnswerBound.of([first, second])
        for effort, budget, limit in product(EFFORTS_ASKED[::3], (None, 10_000), LIMITS):
            spec = asked(effort, budget, limit)
            limits = answer_limit(spec, first), answer_limit(spec, second)
            assert bound.tokens(spec) == max(limits), (first.model, second.model, spec)
