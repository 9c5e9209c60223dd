"""Body admission: the checks before and after a body is read. Refusals cost no read of the body."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.backend import CallLimit
from gateway.errors import ApiError
from gateway.http.known_keys import KEY_FIRST_BYTES, KnownKeys
from gateway.overload.body_budget import BodyBudget, BodyMemory
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.overload.refusals import random_retry_after_s, refused_call


def no_limit(_: str) -> float | None:
    """The limit that no call exceeds."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyAdmission:
    """The checks that all requests with a body share."""

    call_limit: CallLimit = no_limit
    """The capacity of the service, and of memory. It is asked for the key as it was sent
    (`gateway.http.credentials.unchecked_key`), just before a call starts."""
    monitor: MemoryMonitor | None = None
    """The memory of this process. None: it is never short."""
    known_keys: KnownKeys = field(default_factory=KnownKeys)
    """The keys for which large bodies are read."""
    budget: BodyBudget = field(default_factory=BodyBudget)
    """The memory that bodies may take."""

    def admit_body(self) -> ApiError | None:
        """Return the refusal of a body that has not arrived yet, or None when it may be read.

        Only memory counts here: `call_limit` decides about the call once its body has arrived.
        """
        monitor = self.monitor
        if monitor is None or not monitor.is_short:
            return None
        monitor.refused += 1
        return refused_call(random_retry_after_s())

    def check_call(self, caller: str) -> None:
        """Raise ApiError if the call exceeds `call_limit`."""
        retry_after_s = self.call_limit(caller)
        if retry_after_s is not None:
            raise refused_call(retry_after_s)

    def memory(self, key: str) -> BodyMemory:
        """Return the memory of one body, which counts for its key if that is known."""
        return self.budget.open(key if self.known_keys.has(key) else "")

    def needs_key(self, length: int | None, key: str) -> bool:
        """Whether the key has to be checked before a body of `length`; None: of unknown length."""
        return (length is None or length > KEY_FIRST_BYTES) and not self.known_keys.has(key)
