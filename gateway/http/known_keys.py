"""Known keys: those that the service accepted lately.

Anybody can make up a key of the right form. So a large body is read only for a key that the service
has accepted: otherwise any client could make the edge hold 32 MiB.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeAlias

KEY_FIRST_BYTES = 64 * 1024
"""The largest body that is read before its key is known."""

TTL_S = 60.0
"""How long a key is known after the service accepted it. The service checks every call itself."""

KEYS_MAX = 10_000
"""The most keys in memory. The one that was accepted longest ago is dropped first."""

KeyLookup: TypeAlias = Callable[[str, str], Awaitable[bool]]
"""Asks the service about a key, for the request with an id. False: the service cannot be asked.
ApiError: the key is not valid."""


async def no_lookup(_key: str, _request_id: str) -> bool:
    """The lookup without a service."""
    return False


class KnownKeys:
    """Keys that the service accepted within the last minute, as hashes."""

    def __init__(
        self, look_up: KeyLookup = no_lookup, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._look_up = look_up
        self._now = now
        # The hash of a string depends on a secret of the process.
        self._until: OrderedDict[int, float] = OrderedDict()

    def has(self, key: str) -> bool:
        """Whether the service accepted the key lately."""
        return self._until.get(hash(key), 0.0) > self._now()

    def add(self, key: str) -> None:
        """Remember that the service accepted the key."""
        until, digest = self._until, hash(key)
        until[digest] = self._now() + TTL_S
        until.move_to_end(digest)
        if len(until) > KEYS_MAX:
            until.popitem(last=False)

    async def require(self, key: str, request_id: str) -> None:
        """Ask the service about a key that is not known. Return where the service cannot be asked.

        Raises ApiError: the key is not valid.
        """
        if not self.has(key) and await self._look_up(key, request_id):
            self.add(key)
