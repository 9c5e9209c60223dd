"""Body admission: the checks before and after a body is read."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.http.known_keys import KEY_FIRST_BYTES, KnownKeys
from gateway.overload.admission_check import AdmissionCheck
from gateway.overload.body_budget import BodyBudget, BodyMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyAdmission:
    """The checks that all requests with a body share."""

    calls: AdmissionCheck = field(default_factory=AdmissionCheck)
    """Whether a call may start, and a body be read, by capacity and memory."""
    known_keys: KnownKeys = field(default_factory=KnownKeys)
    """The keys for which large bodies are read."""
    budget: BodyBudget = field(default_factory=BodyBudget)
    """The memory that bodies may take."""

    def memory(self, key: str) -> BodyMemory:
        """Return the memory of one body, which counts for its key if that is known."""
        return self.budget.open(key if self.known_keys.has(key) else "")

    def needs_key(self, length: int | None, key: str) -> bool:
        """Whether the key has to be checked before a body of `length`; None: of unknown length."""
        return (length is None or length > KEY_FIRST_BYTES) and not self.known_keys.has(key)
