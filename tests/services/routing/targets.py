"""Targets for the tests of routing."""

from __future__ import annotations

from services.capabilities import Capabilities
from services.config import ChannelConfig
from services.providers.base import Target


def target(name: str, *, priority: int = 0, weight: float = 1.0, url: str = "http://x") -> Target:
    """The model `m` at a channel of that name."""
    channel = ChannelConfig(
        name=name,
        dialect="openai",
        base_url=url,
        priority=priority,
        weight=weight,
        models={"public/m": "m"},
    )
    return Target(channel=channel, model="m", public_model="public/m", capabilities=Capabilities())
