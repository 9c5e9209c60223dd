"""Sealed reasoning that replicas share: turns in Redis or Valkey, beside those of the process.

Each turn is remembered in both places. A turn that this process does not have is asked for, for at
most the client's timeout; while the server is unreachable, the process has only its own turns. The
loss of a server or its data costs no more than reasoning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from services.storage.reasoning import (
    ACCOUNT_BOUNDS,
    TURN_BYTES_MAX,
    TURN_LIFE_S,
    LocalReasoning,
    TurnBounds,
    TurnKeys,
)
from services.storage.redis_client import Arguments, NoReplyError, ScriptClient, read_script

KEY_PREFIX = "pomogator:{reasoning}:"
"""The braces put all keys into one slot of a cluster, to whose node the client connects."""

SCRIPT = read_script("reasoning.lua", {})

WAITING_MAX = 64
"""Most calls that wait for the server. Turns are large: more would not get through in time."""


class RedisReasoning:
    """Store of turns in Redis. It runs a task, so it is used as a context manager."""

    def __init__(
        self, url: str, local: LocalReasoning, *, of_account: TurnBounds = ACCOUNT_BOUNDS
    ) -> None:
        self._local = local
        self._of_account = of_account
        probe = self._remembering("probe", TurnKeys(["probe"], []), b"")
        self.client: ScriptClient[bytes | None] = ScriptClient(
            url, SCRIPT, probe, store="reasoning"
        )

    @property
    def size(self) -> int:
        """Bytes of all turns in this process."""
        return self._local.size

    @property
    def shared(self) -> bool:
        """Whether the server can be asked."""
        return self.client.connected and self.client.waiting < WAITING_MAX

    async def __aenter__(self) -> Self:
        """Wait for the first attempt to connect. Further attempts run in the background."""
        await self.client.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send the last turns, unless the server is unreachable, and disconnect."""
        await self.client.close()

    def remember(self, account: str, keys: TurnKeys, turn: bytes) -> None:
        """Remember a turn here and there. See `ReasoningStore`."""
        self._local.remember(account, keys, turn)
        if self.shared and len(turn) <= TURN_BYTES_MAX:
            self.client.call_and_forget(self._remembering(account, keys, turn))

    async def recall(self, account: str, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Return the turn of each key. See `ReasoningStore`."""
        found = list(await self._local.recall(account, keys))
        missing = [index for index, turn in enumerate(found) if turn is None]
        if not missing or not self.shared:
            return found
        asked = [keys[index] for index in missing]
        try:
            replies = await asyncio.shield(self.client.call(_recalling(account, asked)))
        except NoReplyError:
            return found
        for index, turn in zip(missing, replies, strict=True):
            found[index] = turn
        return found

    def _remembering(self, account: str, keys: TurnKeys, turn: bytes) -> Arguments:
        bounds = (self._of_account.turns, self._of_account.size)
        settings = ("remember", TURN_LIFE_S * 1000, *bounds)
        return [*_names(account), *settings, turn, len(keys.exact), *keys.exact, *keys.loose]


def _recalling(account: str, keys: Sequence[str]) -> Arguments:
    return [*_names(account), "recall", *keys]


def _names(account: str) -> Arguments:
    """Return the script's keys of an account, after their number."""
    return [2, f"{KEY_PREFIX}{account}:turns", f"{KEY_PREFIX}{account}:ages"]
