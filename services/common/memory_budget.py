"""Memory budget: the memory that large requests may take at a time, in total and by key."""

from __future__ import annotations

SHARE_PER_KEY = 0.5
"""Share of the budget for the requests of one key, and for those of all unknown keys together."""


class MemoryBudget:
    """The memory of all requests that are counted. One for edge and service of a process."""

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max` is of memory, not of requests."""
        self.bytes_max = bytes_max
        self.held_bytes = 0
        """Memory of the requests that are counted now."""
        self._by_key: dict[str, int] = {}

    def take(self, key: str, size: int) -> bool:
        """Count `size` bytes of memory, unless that exceeds the budget; then return False."""
        of_key = self._by_key.get(key, 0) + size
        fits = self.held_bytes + size <= self.bytes_max and of_key <= self.bytes_max * SHARE_PER_KEY
        if fits:
            self.held_bytes += size
            self._by_key[key] = of_key
        return fits

    def give_back(self, key: str, size: int) -> None:
        """Stop counting `size` bytes of memory."""
        self.held_bytes -= size
        self._by_key[key] -= size
        if not self._by_key[key]:
            del self._by_key[key]
