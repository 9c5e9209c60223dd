"""Targets for tests."""

from __future__ import annotations

from collections.abc import Sequence

from services.capabilities import Capabilities
from services.config import ChannelConfig, Secret
from services.providers.base import Target


def target(
    name: str,
    *,
    priority: int = 0,
    weight: float = 1.0,
    url: str = "http://x",
    keys: Sequence[str] = ("",),
    key_number: int = 0,
) -> Target:
    """Return the model `m` at a channel of that name, with one of its keys."""
    key, *spare = map(Secret, keys)
    channel = ChannelConfig(
        name=name,
        dialect="openai",
        base_url=url,
        priority=priority,
        weight=weight,
        models={"public/m": "m"},
        key=key,
        spare_keys=tuple(spare),
    )
    return Target(
        channel=channel,
        model="m",
        public_model="public/m",
        capabilities=Capabilities(),
        key_number=key_number,
    )
