"""Targets of calls, made from the shipped capability table."""

from __future__ import annotations

from services.capabilities import CapabilityOverrides, lookup
from services.config import ChannelConfig, Quirks
from services.providers.base import Notes, Target


def target_of(
    model: str,
    dialect: str = "anthropic",
    *,
    quirks: Quirks | None = None,
    overrides: CapabilityOverrides | None = None,
    thinking_by_name: bool = False,
) -> Target:
    """Target for `model` at a provider of `dialect`."""
    return Target(
        channel=ChannelConfig(
            name="test",
            dialect=dialect,
            base_url="http://127.0.0.1:9/v1",
            quirks=quirks or Quirks(),
        ),
        model=model,
        public_model=model,
        capabilities=lookup(model, overrides, dialect),
        thinking_by_name=thinking_by_name,
    )


def told(notes: Notes) -> dict[str, str]:
    """Map each parameter to the action of its last note, such as `dropped`."""
    return {note.param: note.action for note in notes.all}
