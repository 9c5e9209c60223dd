"""All that a reload of the configuration replaces, in one frozen object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.admission.gate import Gate
from services.config import BoundsConfig, ReasoningConfig
from services.routing.catalog import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One configuration in use. A call reads `SnapshotHolder.current` once, and keeps it."""

    bounds: BoundsConfig
    """Concurrency limits of the process."""
    client_certificates: Mapping[str, Sequence[str]]
    """Names in certificates that may call a gRPC method, by method."""
    catalog: Catalog
    """Models and their channels."""
    gate: Gate
    """Admission by this configuration's limits and prices."""
    reasoning: ReasoningConfig
    """What is remembered and shown of reasoning."""


class SnapshotHolder:
    """The current snapshot. A reload sets it; running calls keep the one they began with."""

    __slots__ = ("current",)

    def __init__(self, current: Snapshot) -> None:
        self.current = current

    def catalog(self) -> Catalog:
        """Return the current catalog."""
        return self.current.catalog

    def gate(self) -> Gate:
        """Return the current gate."""
        return self.current.gate

    def bounds(self) -> BoundsConfig:
        """Return the current bounds."""
        return self.current.bounds

    def client_certificates(self) -> Mapping[str, Sequence[str]]:
        """Return the current table of certificates."""
        return self.current.client_certificates

    def lists_thinking_names(self) -> bool:
        """Return whether the list of models has the `-thinking` names."""
        return self.current.reasoning.list_thinking_names
