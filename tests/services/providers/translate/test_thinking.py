from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capabilities import CapabilityOverrides
from services.config import Quirks
from services.domain.spec import EFFORTS, ChatCompletionSpec, Thinking, Tool, ToolChoice
from services.errors import Failure
from services.providers.base import Notes
from services.providers.translate.thinking import (
    BUDGETS,
    ThinkingPlan,
    effort_of,
    nearest,
    plan,
)
from tests.services.providers.targets import target_of, told

T = Thinking


def planned(model: str, dialect: str = "anthropic", **asked: Any) -> tuple[ThinkingPlan, Any]:
    """The plan for a request, and what became of its parameters."""
    named = asked.pop("named", False)
    notes = Notes()
    spec = ChatCompletionSpec(model="m", **asked)
    return plan(spec, target_of(model, dialect, thinking_by_name=named), notes), told(notes)


def test_tables_are_complete() -> None:
    """Every effort but `none` has a budget."""
    assert list(BUDGETS) == list(EFFORTS[1:])
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
        ("claude-sonnet-4", "low", ("budget", 2048), "mapped"),
        ("claude-sonnet-4-5", "high", ("budget", 16_384), "mapped"),
        ("claude-opus-4-1", "max", ("budget", 25_600), "mapped"),
        ("claude-opus-4-6", "high", ("adaptive", "high"), None),
        ("claude-opus-4-6", "xhigh", ("adaptive", "high"), "clamped"),
        ("claude-opus-4-7", "xhigh", ("adaptive", "xhigh"), None),
        ("claude-sonnet-5", "minimal", ("adaptive", "low"), "clamped"),
        ("claude-3-5-haiku", "high", ("default", ""), "dropped"),
        ("gpt-5", "minimal", ("effort", "minimal"), None),
        ("o3", "xhigh", ("effort", "high"), "clamped"),
        ("gpt-4o", "low", ("default", ""), "dropped"),
        ("grok-4", "low", ("default", ""), "dropped"),
        ("deepseek-v3.2", "low", ("adaptive", ""), "mapped"),
        ("unknown", "xhigh", ("effort", "xhigh"), None),
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
        ("claude-opus-4-7", 1024, ("adaptive", "low"), "mapped"),
        ("claude-opus-4-7", 5000, ("adaptive", "medium"), "mapped"),
        ("claude-opus-5", 16_000, ("adaptive", "high"), "mapped"),
        ("claude-opus-5", 32_000, ("adaptive", "xhigh"), "mapped"),
        ("o3", 32_000, ("effort", "high"), "mapped"),
        ("unknown", 5000, ("effort", "medium"), "mapped"),
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
    effort=st.sampled_from(EFFORTS[1:]),
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
        {"reasoning_effort": "none"},
        {"thinking": T(mode="disabled")},
        {"thinking": T(mode="disabled"), "named": True},
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
    choice = ToolChoice(mode="required")
    asked: dict[str, Any] = {"tools": [Tool(name="f")], "tool_choice": choice}
    effort: dict[str, Any] = {"reasoning_effort": "low"}
    assert planned("claude-sonnet-4-5", **asked, **effort) == (
        ThinkingPlan(kind="default"),
        {"reasoning_effort": "dropped"},
    )
    off = ThinkingPlan(kind="off")
    assert planned("claude-sonnet-5", **asked) == (off, {"thinking": "mapped"})
    assert planned("claude-sonnet-4-5", **asked, named=True)[1] == {"thinking": "dropped"}
    assert planned("claude-fable-5", **asked)[0].kind == "default"


@pytest.mark.parametrize(
    ("model", "effort", "noted"),
    [
        ("gpt-5.4", None, {}),
        ("gpt-5.4", "low", {"reasoning_effort": "dropped"}),
        ("gpt-5.4", "none", {}),
        ("gpt-5.6-terra", None, {"thinking": "dropped"}),
        ("gpt-5.6-terra", "high", {"reasoning_effort": "dropped"}),
        ("gpt-5.6-terra", "none", {}),
    ],
)
def test_tools_switch_reasoning_off(model: str, effort: Any, noted: dict[str, str]) -> None:
    """OpenAI's Chat Completions API refuses tools of newer models that reason."""
    asked: dict[str, Any] = {"tools": [Tool(name="f")]}
    if effort:
        asked["reasoning_effort"] = effort
    assert planned(model, "openai", **asked) == (ThinkingPlan(kind="off"), noted)
    assert planned(model, "openrouter", tools=asked["tools"])[0].kind == "default"


def test_strict_refuses_tools_of_a_model_that_reasons() -> None:
    """Reasoning by default is not switched off in strict mode."""
    spec = ChatCompletionSpec(model="m", tools=[Tool(name="f")])
    with pytest.raises(Failure) as refused:
        plan(spec, target_of("gpt-5.6-terra", "openai"), Notes(strict=True))
    assert refused.value.reason == "UNSUPPORTED_FEATURE"


def test_contradictions_are_told() -> None:
    """Of an effort and a budget the one that the model takes counts; the other is noted."""
    both: dict[str, Any] = {
        "reasoning_effort": "low",
        "thinking": T(budget_tokens=9000),
    }
    made, notes = planned("claude-sonnet-4-5", **both)
    assert (made.budget_tokens, notes) == (9000, {"reasoning_effort": "mapped"})
    made, notes = planned("claude-opus-4-7", **both)
    assert (made.effort, notes) == ("low", {"thinking.budget_tokens": "mapped"})


def test_enabled_without_an_amount() -> None:
    """`enabled` alone is a medium amount."""
    made, notes = planned("claude-sonnet-4-5", thinking=T(mode="enabled"))
    assert (made.budget_tokens, notes) == (8192, {"thinking": "mapped"})
    made, notes = planned("claude-opus-4-7", thinking=T(mode="adaptive"))
    assert (made.effort, notes) == ("medium", {"thinking": "mapped"})


def test_strict_refuses_what_cannot_be() -> None:
    """In strict mode reasoning of a model that cannot reason is refused, by name."""
    spec = ChatCompletionSpec(model="m", reasoning_effort="low")
    with pytest.raises(Failure) as refused:
        plan(spec, target_of("gpt-4o", "openai"), Notes(strict=True))
    assert (refused.value.param, refused.value.reason) == (
        "reasoning_effort",
        "UNSUPPORTED_FEATURE",
    )


def test_channels_may_lack_it() -> None:
    """A channel whose quirks drop the parameters gets none of them."""
    quirks, notes = Quirks(drops=("reasoning_effort", "thinking")), Notes()
    spec = ChatCompletionSpec(model="m", reasoning_effort="low", thinking=T(budget_tokens=2000))
    assert plan(spec, target_of("unknown", "openai", quirks=quirks), notes).kind == "default"
    assert told(notes) == {"reasoning_effort": "dropped", "thinking": "dropped"}


def test_no_efforts_at_all() -> None:
    """An override may take all efforts away: reasoning is then only switched on."""
    target = target_of("claude-opus-4-7", overrides=CapabilityOverrides(efforts=()))
    spec = ChatCompletionSpec(model="m", reasoning_effort="low")
    assert plan(spec, target, Notes()) == ThinkingPlan(kind="adaptive", active=True)
