"""Public names of models and their targets."""

from __future__ import annotations

import pytest

from services.config import ChannelConfig, Config, ModelConfig
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.routing.catalog import Catalog

SONNET = "anthropic/claude-sonnet-4-5-20250929"


def channel(name: str, models: dict[str, str], dialect: str = "openai") -> ChannelConfig:
    """Return a channel that serves `models`."""
    return ChannelConfig(name=name, dialect=dialect, base_url="http://x", models=models)


def catalog(*channels: ChannelConfig, models: tuple[ModelConfig, ...] = ()) -> Catalog:
    """The catalog of a configuration."""
    return Catalog(Config(channels=channels, models=models))


def test_a_model_has_a_target_at_each_of_its_channels() -> None:
    """Each under its own upstream name."""
    route = catalog(channel("a", {"m": "m-1"}), channel("b", {"m": "m-2"})).resolve("m")

    assert [(target.channel.name, target.model) for target in route.targets] == [
        ("a", "m-1"),
        ("b", "m-2"),
    ]


def test_an_unknown_model_is_refused_with_its_name() -> None:
    """The name is cut, and has no control characters."""
    with pytest.raises(Failure) as refused:
        catalog(channel("a", {"m": "m"})).resolve("x\r\n" + "y" * 100)

    assert refused.value.reason == ErrorReason.MODEL_NOT_FOUND
    assert refused.value.message == "Invalid model specified"
    assert refused.value.param == "model"
    assert refused.value.facts["model"] == "x??" + "y" * 61


def test_a_model_that_can_reason_has_a_thinking_name_too() -> None:
    """It asks for reasoning; for all else the base model's name counts."""
    names = catalog(channel("a", {SONNET: "claude-sonnet-4-5-20250929"}, "anthropic"))

    route = names.resolve(f"{SONNET}-thinking")

    assert route.base_model == SONNET
    assert route.targets[0].thinking_by_name
    assert not names.resolve(SONNET).targets[0].thinking_by_name


def test_a_model_that_cannot_reason_has_no_thinking_name() -> None:
    """The configuration takes precedence over the shipped table."""
    names = catalog(
        channel("a", {SONNET: "claude-sonnet-4-5-20250929"}, "anthropic"),
        models=(ModelConfig(name=SONNET, thinking="none"),),
    )

    assert names.find(f"{SONNET}-thinking") is None


def test_a_configured_thinking_name_is_not_derived() -> None:
    """`<model>-thinking` of the configuration stays as it is."""
    names = catalog(
        channel("a", {SONNET: "claude-sonnet-4-5-20250929"}, "anthropic"),
        channel("b", {f"{SONNET}-thinking": "special"}),
    )

    route = names.resolve(f"{SONNET}-thinking")

    assert [target.channel.name for target in route.targets] == ["b"]
    assert route.base_model == route.model
    assert route.targets[0].thinking_by_name


def test_routes_are_sorted_by_name() -> None:
    """So that pages of models are stable."""
    names = catalog(channel("a", {"z": "z", "b": "b"}), channel("b", {"a": "a"}))

    assert [route.model for route in names.routes] == ["a", "b", "z"]
