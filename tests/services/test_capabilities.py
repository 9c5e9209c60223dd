from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from importlib import resources
from typing import get_type_hints

import msgspec
import pytest

from services.capabilities import (
    Capabilities,
    CapabilityOverrides,
    Range,
    family_name,
    lookup,
    shipped_families,
)
from services.domain.spec import EFFORTS

CLAUDES = {
    "claude-3-5-haiku-20241022": ("none", "off"),
    "claude-3-7-sonnet-20250219": ("budget", "off"),
    "claude-sonnet-4-20250514": ("budget", "off"),
    "claude-opus-4-1-20250805": ("budget", "off"),
    "claude-sonnet-4-5-20250929": ("budget", "off"),
    "claude-haiku-4-5": ("budget", "off"),
    "claude-opus-4-5-20251101": ("budget", "off"),
    "claude-opus-4-6": ("adaptive", "off"),
    "claude-sonnet-4-6": ("adaptive", "off"),
    "claude-opus-4-7": ("adaptive", "off"),
    "claude-opus-4-8": ("adaptive", "off"),
    "claude-sonnet-5": ("adaptive", "on"),
    "claude-opus-5": ("adaptive", "on"),
    "claude-haiku-5-5": ("adaptive", "on"),
    "claude-sonnet-5-5": ("adaptive", "always"),
    "claude-opus-5-5": ("adaptive", "always"),
    "claude-fable-5": ("adaptive", "always"),
    "claude-mythos-5": ("adaptive", "always"),
}


def test_overrides_have_every_key() -> None:
    """The configuration can override every key of the table."""
    keys = [field.name for field in fields(Capabilities)]
    assert list(CapabilityOverrides.__struct_fields__) == keys

    known, overriding = get_type_hints(Capabilities), get_type_hints(CapabilityOverrides)
    for key in keys:
        kind = dict[str, Range] if known[key] == Mapping[str, Range] else known[key]
        assert overriding[key] == kind | None, key


def test_shipped_models_have_a_row() -> None:
    """Every model with a shipped channel or price matches more than the rows of an API."""
    root = resources.files("services")
    channels = tomllib.loads(root.joinpath("config/defaults.toml").read_text())["channels"]
    models = {name for channel in channels for name in channel.get("models", {}).values()}
    models |= set(json.loads(root.joinpath("metering/prices.json").read_text())["prices"])
    rows = [row for row in shipped_families() if row.match != ("*",)]
    missing = {
        model
        for model in models
        if not any(row.describes(family_name(model), row.dialect) for row in rows)
    }
    assert not missing


def test_every_row_sets_a_key() -> None:
    """And has patterns in the form of family names."""
    for family in shipped_families():
        assert family.match
        assert all(pattern == family_name(pattern) for pattern in family.match)
        keys = CapabilityOverrides.__struct_fields__
        assert any(getattr(family, key) is not None for key in keys)


@pytest.mark.parametrize(("model", "expected"), CLAUDES.items())
def test_reasoning_of_claude_models(model: str, expected: tuple[str, str]) -> None:
    """Each family has its own kind of thinking."""
    found = lookup(model, dialect="anthropic")
    assert (found.thinking, found.thinking_default) == expected
    assert found.named_thinking is (expected[0] != "none")
    assert found.ranges == {"temperature": (0, 1)}
    assert 0 < (found.default_max_tokens or found.max_output_tokens) <= found.max_output_tokens


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4.5"),
        ("claude-opus-4-7", "us.anthropic.claude-opus-4-7-v1:0"),
        ("gpt-4.1-mini", "openai/gpt-4.1-mini"),
        ("grok-4", "x-ai/GROK-4"),
        ("llama-3.3-70b-instruct", "meta-llama/llama-3.3-70b-instruct:free"),
    ],
)
def test_models_are_known_by_every_name(here: str, there: str) -> None:
    """Vendor prefix, dots and case do not matter."""
    assert lookup(here) == lookup(there)


def test_newer_claude_models_reject_sampling() -> None:
    """From Opus 4.7 on temperature, top_p and top_k are refused."""
    sampling = {"temperature", "top_p", "top_k"}
    for model in ("claude-opus-4-7", "claude-sonnet-5", "claude-opus-7", "claude-fable-5"):
        assert sampling <= lookup(model).rejects
    for model in ("claude-sonnet-4-5", "claude-opus-4-6", "claude-3-haiku-20240307"):
        assert not sampling & lookup(model).rejects


def test_forced_tool_calls_depend_on_the_generation() -> None:
    """A new generation may lose or gain them."""
    refuses = ("claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-1", "claude-mythos-5.1")
    takes = ("claude-sonnet-5", "claude-fable-5", "claude-opus-4-8", "gpt-5.2")
    assert not any(lookup(model).forced_tool_choice for model in refuses)
    assert all(lookup(model).forced_tool_choice for model in takes)


@pytest.mark.parametrize(
    ("model", "thinking", "default", "efforts"),
    [
        ("gpt-4o-mini", "none", "off", None),
        ("gpt-5-chat-latest", "none", "off", None),
        ("o3-2025-04-16", "effort", "always", ("low", "medium", "high")),
        ("gpt-5-mini", "effort", "always", ("minimal", "low", "medium", "high")),
        ("gpt-5-pro", "effort", "always", ("high",)),
        ("gpt-5.1", "effort", "off", ("low", "medium", "high")),
        ("gpt-5.4-mini", "effort", "off", ("low", "medium", "high", "xhigh")),
        ("gpt-5.5", "effort", "on", ("low", "medium", "high", "xhigh")),
        ("gpt-5.6-terra", "effort", "on", ("low", "medium", "high", "xhigh")),
        ("gpt-6.1-sol", "effort", "on", ("low", "medium", "high", "xhigh")),
        ("gpt-5.5-pro", "effort", "always", ("medium", "high", "xhigh")),
        ("gpt-5.6-chat-latest", "none", "off", None),
        ("gpt-chat-latest", "none", "off", None),
        ("deepseek-v4-pro", "effort", "on", EFFORTS[1:]),
        ("kimi-k2.5", "effort", "on", ()),
        ("kimi-k2.7-code", "effort", "always", ()),
        ("kimi-k3", "effort", "always", ("low", "high", "max")),
        ("deepseek-reasoner", "effort", "always", ()),
        ("grok-3-mini", "effort", "always", ("low", "high")),
        ("grok-4-fast-non-reasoning", "none", "off", ()),
        ("gemini-2.5-flash", "effort", "on", ("minimal", "low", "medium", "high")),
        ("qwen3-32b", "effort", "on", ()),
        ("qwen3-coder", "none", "off", None),
        ("glm-4.6", "effort", "on", ()),
        ("smollm2-135m", "none", "off", None),
    ],
)
def test_reasoning_of_other_models(
    model: str, thinking: str, default: str, efforts: tuple[str, ...] | None
) -> None:
    """Models of other vendors take an effort, or a switch alone."""
    found = lookup(model, dialect="openai")
    assert (found.thinking, found.thinking_default) == (thinking, default)
    assert efforts is None or found.efforts == efforts


@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-5.6-luna", "gpt-5.5-cyber", "gpt-6-astra"])
def test_newer_gpt_models_fix_sampling(model: str) -> None:
    """Sampling parameters are refused, and the limit has its newer name."""
    found = lookup(model, dialect="openai")
    assert {"temperature", "top_p", "stop"} <= found.rejects
    assert found.max_tokens_parameter == "max_completion_tokens"
    assert found.max_output_tokens == 128_000
    assert not found.thinking_tools
    assert lookup(model, dialect="openrouter").thinking_tools


@pytest.mark.parametrize("model", ["deepseek-v4-pro", "kimi-k2.5", "kimi-k2.6"])
def test_switch_of_newer_open_models(model: str) -> None:
    """The parameter `thinking` switches reasoning off."""
    assert lookup(model, dialect="openai").thinking_switch == "thinking"


def test_unknown_models_get_everything() -> None:
    """Every parameter is sent."""
    assert lookup("our-own-finetune", dialect="openai") == Capabilities()
    assert not lookup("our-own-finetune").named_thinking


def test_rows_of_a_dialect_hold_there_only() -> None:
    """Facts about an API, not about a model, depend on the dialect."""
    assert lookup("some-model", dialect="anthropic").ranges == {"temperature": (0, 1)}
    assert lookup("some-model", dialect="openrouter").takes_budgets
    assert "user" in lookup("gemini-2.5-pro", dialect="openai").rejects
    assert "user" not in lookup("gemini-2.5-pro", dialect="openrouter").rejects


def test_the_configuration_overrides_the_table() -> None:
    """Keys that it does not set stay."""
    overrides = msgspec.toml.decode(
        'thinking_default = "on"\nrejects = []\nimages = "no"\nmax_output_tokens = 100',
        type=CapabilityOverrides,
    )
    found = lookup("claude-opus-4-7", overrides)
    assert (found.thinking, found.thinking_default) == ("adaptive", "on")
    assert (found.rejects, found.images, found.max_output_tokens) == (frozenset(), "no", 100)


@pytest.mark.parametrize(
    "line",
    [
        *('thinking = "hard"', "efforts = [1]", "unheard_of = true"),
        *('efforts = ["none", "high"]', 'default_effort = "none"'),
    ],
)
def test_refuses_unknown_keys_and_values(line: str) -> None:
    """A misspelt override is an error, and so is `none` where an effort is expected."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.toml.decode(line, type=CapabilityOverrides)
