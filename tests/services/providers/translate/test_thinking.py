from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.capabilities import CapabilityOverrides
from services.common.chat_names import EFFORT_NAMES
from services.config import Quirks
from services.errors import Failure
from services.providers.base import Notes
from services.providers.translate.thinking import (
    ASKED_EFFORTS,
    BUDGETS,
    ThinkingPlan,
    effort_of,
    nearest,
    plan,
)
from tests.services.providers.targets import target_of, told

E = pb.ReasoningEffort
T = pb.Thinking


def planned(model: str, dialect: str = "anthropic", **asked: Any) -> tuple[ThinkingPlan, Any]:
    """The plan for a request, and what became of its parameters."""
    named = asked.pop("named", False)
    notes = Notes()
    spec = pb.ChatCompletionSpec(model="m", **asked)
    return plan(spec, target_of(model, dialect, thinking_by_name=named), notes), told(notes)


def test_tables_are_complete() -> None:
    """Every effort of the contract has a level, and every level but `none` a budget."""
    assert set(ASKED_EFFORTS) == set(E.values()) - {pb.REASONING_EFFORT_UNSPECIFIED}
    assert list(ASKED_EFFORTS.values()) == list(EFFORT_NAMES)
    assert list(BUDGETS) == list(EFFORT_NAMES[1:])
    assert all(low < high for low, high in pairwise(BUDGETS.values()))


@pytest.mark.parametrize("effort", ["low", "medium", "high", "xhigh"])
def test_efforts_survive_the_way_there_and_back(effort: Any) -> None:
    """An effort converted to a budget and back is the same effort."""
    assert effort_of(BUDGETS[effort]) == effort


def test_nearest() -> None:
    """An unknown level becomes the next lower one, or the lowest there is."""
    assert nearest("xhigh", ("low", "medium", "high", "max")) == "high"
    assert nearest("minimal", ("medium", "high")) == "medium"
    assert nearest("max", ("low",)) == "low"


def test_nothing_asked() -> None:
    """Without a setting none is sent; `active` tells whether the model reasons by default."""
    for model, active in (("claude-sonnet-4-5", False), ("claude-sonnet-5", True), ("o3", True)):
        made, notes = planned(model)
        assert (made.kind, made.active, notes) == ("default", active, {})


@pytest.mark.parametrize(
    ("model", "kind", "amount"),
    [
        ("claude-sonnet-4-5", "budget", 8192),
        ("claude-opus-4-6", "adaptive", "medium"),
        ("claude-opus-4-7", "adaptive", "medium"),
        ("claude-fable-5", "adaptive", "medium"),
    ],
)
def test_names_ask_for_a_medium_amount(model: str, kind: str, amount: object) -> None:
    """A `-thinking` name alone switches reasoning on, with no note."""
    made, notes = planned(model, named=True)
    assert (made.kind, made.budget_tokens or made.effort, notes) == (kind, amount, {})


@pytest.mark.parametrize(
    ("model", "effort", "expected", "noted"),
    [
        ("claude-sonnet-4", pb.REASONING_EFFORT_LOW, ("budget", 2048), "MAPPED"),
        ("claude-sonnet-4-5", pb.REASONING_EFFORT_HIGH, ("budget", 16_384), "MAPPED"),
        ("claude-opus-4-1", pb.REASONING_EFFORT_MAX, ("budget", 25_600), "MAPPED"),
        ("claude-opus-4-6", pb.REASONING_EFFORT_HIGH, ("adaptive", "high"), None),
        ("claude-opus-4-6", pb.REASONING_EFFORT_XHIGH, ("adaptive", "high"), "CLAMPED"),
        ("claude-opus-4-7", pb.REASONING_EFFORT_XHIGH, ("adaptive", "xhigh"), None),
        ("claude-sonnet-5", pb.REASONING_EFFORT_MINIMAL, ("adaptive", "low"), "CLAMPED"),
        ("claude-3-5-haiku", pb.REASONING_EFFORT_HIGH, ("default", ""), "DROPPED"),
        ("gpt-5", pb.REASONING_EFFORT_MINIMAL, ("effort", "minimal"), None),
        ("o3", pb.REASONING_EFFORT_XHIGH, ("effort", "high"), "CLAMPED"),
        ("gpt-4o", pb.REASONING_EFFORT_LOW, ("default", ""), "DROPPED"),
        ("grok-4", pb.REASONING_EFFORT_LOW, ("default", ""), "DROPPED"),
        ("deepseek-v3.2", pb.REASONING_EFFORT_LOW, ("adaptive", ""), "MAPPED"),
        ("unknown", pb.REASONING_EFFORT_XHIGH, ("effort", "xhigh"), None),
    ],
)
def test_efforts(model: str, effort: Any, expected: object, noted: str | None) -> None:
    """An effort reaches each family in its own form; what changed is told."""
    dialect = "anthropic" if model.startswith("claude") else "openai"
    made, notes = planned(model, dialect, reasoning_effort=effort)
    assert (made.kind, made.budget_tokens or made.effort) == expected
    assert notes == ({"reasoning_effort": noted} if noted else {})


@pytest.mark.parametrize(
    ("model", "budget", "expected", "noted"),
    [
        ("claude-sonnet-4-5", 5000, ("budget", 5000), None),
        ("claude-opus-4-6", 5000, ("budget", 5000), None),
        ("claude-opus-4-7", 1024, ("adaptive", "low"), "MAPPED"),
        ("claude-opus-4-7", 5000, ("adaptive", "medium"), "MAPPED"),
        ("claude-opus-5", 16_000, ("adaptive", "high"), "MAPPED"),
        ("claude-opus-5", 32_000, ("adaptive", "xhigh"), "MAPPED"),
        ("o3", 32_000, ("effort", "high"), "MAPPED"),
        ("unknown", 5000, ("effort", "medium"), "MAPPED"),
    ],
)
def test_budgets(model: str, budget: int, expected: object, noted: str | None) -> None:
    """A budget is sent to models that take budgets, and converted to an effort for others."""
    dialect = "anthropic" if model.startswith("claude") else "openai"
    made, notes = planned(model, dialect, thinking=T(budget_tokens=budget))
    assert (made.kind, made.budget_tokens or made.effort) == expected
    assert notes == ({"thinking.budget_tokens": noted} if noted else {})


def test_openrouter_takes_budgets_for_all() -> None:
    """OpenRouter is told a number of tokens as it is, also for unknown models."""
    made, notes = planned("unknown", "openrouter", thinking=T(budget_tokens=5000))
    assert (made.kind, made.budget_tokens, notes) == ("budget", 5000, {})


@pytest.mark.parametrize(
    ("max_tokens", "asked", "budget", "limit"),
    [
        (20_000, 5000, 5000, 20_000),
        (5001, 5000, 5000, 5001),
        (5000, 5000, 4000, 5000),
        (1025, 5000, 1024, 1025),
        (1024, 5000, 1024, 2048),
        (100, 5000, 1024, 1124),
    ],
)
def test_budgets_leave_room(max_tokens: int, asked: int, budget: int, limit: int) -> None:
    """A budget over the limit is lowered; if the minimum is over it, the limit is raised."""
    thinking = T(budget_tokens=asked)
    made, notes = planned("claude-sonnet-4-5", thinking=thinking, max_tokens=max_tokens)
    assert (made.budget_tokens, made.max_tokens) == (budget, limit)
    assert bool(notes) is (budget != asked)
    assert ("max_tokens" in notes) is (limit != max_tokens)


@given(
    max_tokens=st.none() | st.integers(1, 2**31 - 1),
    budget=st.none() | st.integers(1024, 32_000),
    effort=st.sampled_from(list(ASKED_EFFORTS)[1:]),
)
def test_budgets_are_always_legal(max_tokens: int | None, budget: int | None, effort: Any) -> None:
    """Whatever is asked, a budget is at least 1024 and below the limit on the answer."""
    asked: dict[str, Any] = {"thinking": T(budget_tokens=budget)} if budget else {}
    made, _ = planned(
        "claude-opus-4-1", **(asked or {"reasoning_effort": effort}), max_tokens=max_tokens
    )
    assert made.kind == "budget"
    assert 1024 <= made.budget_tokens < (made.max_tokens or 32_000)


@pytest.mark.parametrize(
    "asked",
    [
        {"reasoning_effort": pb.REASONING_EFFORT_NONE},
        {"thinking": T(mode=pb.THINKING_MODE_DISABLED)},
        {"thinking": T(mode=pb.THINKING_MODE_DISABLED), "named": True},
    ],
)
@pytest.mark.parametrize(
    ("model", "kind", "effort"),
    [
        ("claude-sonnet-4-5", "off", ""),
        ("claude-sonnet-5", "off", ""),
        ("claude-fable-5", "adaptive", "low"),
        ("gpt-5", "effort", "minimal"),
        ("gpt-5.2", "off", ""),
        ("deepseek-reasoner", "default", ""),
        ("claude-3-haiku", "default", ""),
    ],
)
def test_off(model: str, kind: str, effort: str, asked: dict[str, Any]) -> None:
    """Reasoning is off if the model can be told so, else as little as it can."""
    made, notes = planned(model, **asked)
    assert (made.kind, made.effort) == (kind, effort)
    assert bool(notes) is (model in ("claude-fable-5", "gpt-5", "deepseek-reasoner"))


def test_forced_tools_switch_reasoning_off() -> None:
    """Claude does not reason while it is made to call a tool: the tool wins, with a note."""
    choice = pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)
    asked: dict[str, Any] = {"tools": [pb.Tool(name="f")], "tool_choice": choice}
    effort: dict[str, Any] = {"reasoning_effort": pb.REASONING_EFFORT_LOW}
    assert planned("claude-sonnet-4-5", **asked, **effort) == (
        ThinkingPlan(kind="default"),
        {"reasoning_effort": "DROPPED"},
    )
    assert planned("claude-sonnet-5", **asked) == (ThinkingPlan(kind="off"), {})
    assert planned("claude-sonnet-4-5", **asked, named=True)[1] == {"thinking": "DROPPED"}
    assert planned("claude-fable-5", **asked)[0].kind == "default"


@pytest.mark.parametrize(
    ("model", "effort", "noted"),
    [
        ("gpt-5.4", None, {}),
        ("gpt-5.4", pb.REASONING_EFFORT_LOW, {"reasoning_effort": "DROPPED"}),
        ("gpt-5.4", pb.REASONING_EFFORT_NONE, {}),
        ("gpt-5.6-terra", None, {"thinking": "DROPPED"}),
        ("gpt-5.6-terra", pb.REASONING_EFFORT_HIGH, {"reasoning_effort": "DROPPED"}),
        ("gpt-5.6-terra", pb.REASONING_EFFORT_NONE, {}),
    ],
)
def test_tools_switch_reasoning_off(model: str, effort: Any, noted: dict[str, str]) -> None:
    """OpenAI's Chat Completions API refuses tools of newer models that reason."""
    asked: dict[str, Any] = {"tools": [pb.Tool(name="f")]}
    if effort:
        asked["reasoning_effort"] = effort
    assert planned(model, "openai", **asked) == (ThinkingPlan(kind="off"), noted)
    assert planned(model, "openrouter", tools=asked["tools"])[0].kind == "default"


def test_strict_refuses_tools_of_a_model_that_reasons() -> None:
    """Reasoning by default is not switched off in strict mode."""
    spec = pb.ChatCompletionSpec(tools=[pb.Tool(name="f")])
    with pytest.raises(Failure) as refused:
        plan(spec, target_of("gpt-5.6-terra", "openai"), Notes(strict=True))
    assert refused.value.reason == "UNSUPPORTED_FEATURE"


def test_contradictions_are_told() -> None:
    """Of an effort and a budget the one that the model takes counts; the other is noted."""
    both: dict[str, Any] = {
        "reasoning_effort": pb.REASONING_EFFORT_LOW,
        "thinking": T(budget_tokens=9000),
    }
    made, notes = planned("claude-sonnet-4-5", **both)
    assert (made.budget_tokens, notes) == (9000, {"reasoning_effort": "MAPPED"})
    made, notes = planned("claude-opus-4-7", **both)
    assert (made.effort, notes) == ("low", {"thinking.budget_tokens": "MAPPED"})


def test_enabled_without_an_amount() -> None:
    """`enabled` alone is a medium amount."""
    made, notes = planned("claude-sonnet-4-5", thinking=T(mode=pb.THINKING_MODE_ENABLED))
    assert (made.budget_tokens, notes) == (8192, {"thinking": "MAPPED"})
    made, notes = planned("claude-opus-4-7", thinking=T(mode=pb.THINKING_MODE_ADAPTIVE))
    assert (made.effort, notes) == ("medium", {"thinking": "MAPPED"})


def test_strict_refuses_what_cannot_be() -> None:
    """In strict mode reasoning of a model that cannot reason is refused, by name."""
    spec = pb.ChatCompletionSpec(reasoning_effort=pb.REASONING_EFFORT_LOW)
    with pytest.raises(Failure) as refused:
        plan(spec, target_of("gpt-4o", "openai"), Notes(strict=True))
    assert (refused.value.param, refused.value.reason) == (
        "reasoning_effort",
        "UNSUPPORTED_FEATURE",
    )


def test_channels_may_lack_it() -> None:
    """A channel whose quirks drop the parameters gets none of them."""
    quirks, notes = Quirks(drops=("reasoning_effort", "thinking")), Notes()
    spec = pb.ChatCompletionSpec(
        reasoning_effort=pb.REASONING_EFFORT_LOW, thinking=T(budget_tokens=2000)
    )
    assert plan(spec, target_of("unknown", "openai", quirks=quirks), notes).kind == "default"
    assert told(notes) == {"reasoning_effort": "DROPPED", "thinking": "DROPPED"}


def test_no_efforts_at_all() -> None:
    """An override may take all efforts away: reasoning is then only switched on."""
    target = target_of("claude-opus-4-7", overrides=CapabilityOverrides(efforts=()))
    spec = pb.ChatCompletionSpec(reasoning_effort=pb.REASONING_EFFORT_LOW)
    assert plan(spec, target, Notes()) == ThinkingPlan(kind="adaptive", active=True)
