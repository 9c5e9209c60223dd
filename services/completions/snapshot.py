"""Snapshot: everything that a reload of the configuration replaces, in one frozen object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.admission.call_plan import CallPlans
from services.config import Config, ReasoningConfig
from services.routing.catalog import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One configuration in use. A call reads `SnapshotHolder.current` once, and keeps it."""

    config: Config
    """All of the configuration."""
    client_certificates: Mapping[str, Sequence[str]]
    """Names in certificates that may call a gRPC method, by method."""
    catalog: Catalog
    """Models and their channels."""
    plans: CallPlans
    """Limits, prices and routes, compiled for each key and model."""
    reasoning: ReasoningConfig
    """Settings of the reasoning that is remembered and shown."""
    joins_repeats: bool
    """Whether a request that is repeated in its session gets the answer of the first one."""


class SnapshotHolder:
    """The current snapshot. A reload sets it; running calls keep the one they began with."""

    __slots__ = ("current",)

    def __init__(self, current: Snapshot) -> None:
        self.current = current

    def catalog(self) -> Catalog:
        """Return the current catalog."""
        return self.current.catalog

    def plans(self) -> CallPlans:
        """Return the current plans."""
        return self.current.plans

    def client_certificates(self) -> Mapping[str, Sequence[str]]:
        """Return the current table of certificates."""
        return self.current.client_certificates

    def lists_thinking_names(self) -> bool:
        """Return whether the list of models has the `-thinking` names."""
        return self.current.reasoning.list_thinking_names
