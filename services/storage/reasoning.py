"""Sealed reasoning of the latest turns, by account and tool call, in this process.

The keys of a turn are those of its tool calls. A turn is forgotten after `TURN_LIFE_S`, or earlier,
the oldest first, where its account or the process has too many or too large ones.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from services.clock import Clock

TURN_LIFE_S = 3600
"""Time for which a turn is remembered."""

TURN_BYTES_MAX = 2**20
"""A larger turn is not remembered."""

KEY_BYTES = 200
"""Memory of a key, beside the turn itself."""


class TurnBounds(NamedTuple):
    """Most turns that are remembered, and their bytes."""

    turns: int
    size: int


ACCOUNT_BOUNDS = TurnBounds(turns=1000, size=8 * 2**20)
PROCESS_BOUNDS = TurnBounds(turns=50_000, size=64 * 2**20)


class TurnKeys(NamedTuple):
    """Keys of a turn, at least one."""

    exact: Sequence[str]
    """Keys of which the latest turn counts: they tell which conversation it is of."""
    loose: Sequence[str]
    """Keys of which none counts where two different turns have them."""


class ReasoningStore(Protocol):
    """Store of turns. It may lose any of them."""

    @property
    def size(self) -> int:
        """Bytes of all turns in this process."""
        ...

    def remember(self, account: str, keys: TurnKeys, turn: bytes) -> None:
        """Remember a turn by its keys."""
        ...

    async def recall(self, account: str, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Return the turn of each key: None: not stored, empty: ambiguous."""
        ...


class _Turn:
    """One turn."""

    __slots__ = ("account", "data", "expires_at", "keys", "number", "size")

    def __init__(self, account: str, keys: Sequence[str], data: bytes, number: int) -> None:
        self.account = account
        self.keys = keys
        self.data = data
        self.number = number
        self.size = len(data) + KEY_BYTES * len(keys)
        self.expires_at = 0.0


class _Turns:
    """Turns by their numbers, the oldest first."""

    __slots__ = ("ambiguous", "by_key", "by_number", "size")

    def __init__(self) -> None:
        self.ambiguous: set[str] = set()
        self.by_number: OrderedDict[int, _Turn] = OrderedDict()
        self.by_key: dict[str, _Turn] = {}
        self.size = 0

    def exceed(self, bounds: TurnBounds) -> bool:
        """Whether there are more than `bounds` allow."""
        return len(self.by_number) > bounds.turns or self.size > bounds.size

    @property
    def oldest(self) -> _Turn:
        """The oldest turn."""
        return next(iter(self.by_number.values()))


class LocalReasoning:
    """Turns of this process."""

    def __init__(
        self,
        clock: Clock,
        *,
        of_account: TurnBounds = ACCOUNT_BOUNDS,
        of_process: TurnBounds = PROCESS_BOUNDS,
        life_s: float = TURN_LIFE_S,
    ) -> None:
        self._clock = clock
        self._of_account = of_account
        self._of_process = of_process
        self._all = _Turns()
        self._accounts: dict[str, _Turns] = {}
        self._number = 0
        self._life_s = life_s
        self._timer: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """Bytes of all turns."""
        return self._all.size

    def remember(self, account: str, keys: TurnKeys, turn: bytes) -> None:
        """Remember a turn. See `ReasoningStore`."""
        if len(turn) > TURN_BYTES_MAX:
            return
        self._expire()
        turns = self._accounts.setdefault(account, _Turns())
        for key in keys.loose:
            known = turns.by_key.get(key)
            if known is not None and known.data != turn:
                turns.ambiguous.add(key)
        self._number += 1
        made = _Turn(account, (*keys.exact, *keys.loose), turn, self._number)
        made.expires_at = self._clock.now() + self._life_s
        for each in (turns, self._all):
            each.by_number[made.number] = made
            each.size += made.size
        turns.by_key.update(dict.fromkeys(made.keys, made))
        while turns.exceed(self._of_account):
            self._forget(turns.oldest)
        while self._all.exceed(self._of_process):
            self._forget(self._all.oldest)
        self._set_timer()

    async def recall(self, account: str, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Return the turn of each key. See `ReasoningStore`."""
        self._expire()
        turns = self._accounts.get(account)
        if turns is None:
            return [None] * len(keys)
        found = [turns.by_key.get(key) for key in keys]
        return [
            None if turn is None else b"" if key in turns.ambiguous else turn.data
            for key, turn in zip(keys, found, strict=True)
        ]

    def _expire(self) -> None:
        now = self._clock.now()
        while self._all.by_number and self._all.oldest.expires_at <= now:
            self._forget(self._all.oldest)

    def _set_timer(self) -> None:
        """Expire turns in time, also where no call comes any more."""
        if self._timer is None and self._all.by_number:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._life_s, self._expire_in_time)

    def _expire_in_time(self) -> None:
        self._timer = None
        self._expire()
        self._set_timer()

    def _forget(self, turn: _Turn) -> None:
        turns = self._accounts[turn.account]
        for each in (turns, self._all):
            del each.by_number[turn.number]
            each.size -= turn.size
        for key in turn.keys:
            if turns.by_key.get(key) is turn:
                del turns.by_key[key]
                turns.ambiguous.discard(key)
        if not turns.by_number:
            del self._accounts[turn.account]
