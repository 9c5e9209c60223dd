from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import msgspec
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2 as content

from services.admission.answer_limit import answer_limit, estimate_max_tokens
from services.capabilities import lookup
from services.common.chat_names import EFFORTS, Effort
from services.config import ChannelConfig
from services.providers.base import Notes, Target
from services.providers.registry import DIALECTS

MODELS = (
    "claude-3-haiku", "claude-3-7-sonnet", "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-5",
    "gpt-4o", "gpt-5", "gpt-5.1", "o3", "gemini-2.5-pro", "deepseek-v3.1", "unheard-of",
)  # fmt: skip
EFFORTS_ASKED: tuple[Effort | None, ...] = (None, "none", "minimal", "low", "high", "max")
LIMITS = (None, 1, 20, 1024, 1025, 5_000, 500_000)
SENT = ("max_tokens", "max_completion_tokens")


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


def asked(effort: Effort | None, budget: int | None, max_tokens: int | None) -> Any:
    """Return a request with these wishes."""
    spec = pb.ChatCompletionSpec(model="public/m", n=1)
    spec.messages.add(role=content.ROLE_USER).content.add().text = "Hello"
    if effort:
        spec.reasoning_effort = EFFORTS[effort]
    if budget:
        spec.thinking.budget_tokens = budget
    if max_tokens:
        spec.max_tokens = max_tokens
    return spec


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


def test_a_minimum_of_reasoning_is_held_too() -> None:
    """One token is asked for, and 1,025 are sent."""
    assert answer_limit(asked("high", None, 1), target("anthropic", "claude-sonnet-4-5")) == 1025


def test_all_choices_and_targets_are_held() -> None:
    """The most that any target may be sent, for every choice."""
    targets = [target("openai", "gpt-4o"), target("anthropic", "claude-sonnet-4-5")]
    spec = asked("high", None, 1)
    spec.n = 3

    assert estimate_max_tokens(spec, targets) == 3 * 1025
