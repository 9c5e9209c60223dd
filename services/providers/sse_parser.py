"""Server-sent events from bytes, without I/O.

The format is that of the HTML standard (section "Server-sent events"), with two
liberties that providers make necessary:

- an event that the end of the body left without its blank line counts if its data
  is complete, since hand-made servers close right after `data: [DONE]`;
- a line `error: {…}`, which the standard ignores, is an event named `error`:
  llama-box (GPUStack) ends a failed stream in this way. Others write `{"error": …}`
  without the name of a field.
"""

from __future__ import annotations

from functools import partial

import msgspec

from services.common.json_errors import NOT_JSON
from services.providers.base import SseEvent
from services.providers.unusable_answers import OverlongAnswerError, unreadable

EVENT_MAX = 64 * 1024 * 1024
"""Maximum size of one event in bytes, as of a whole answer: images are sent in one event."""

EVENT_FREE = 2 * 1024 * 1024
"""Bytes of an event that are buffered without a share of the budget."""

LARGE_EVENTS_BUDGET = 256 * 1024 * 1024
"""Bytes beyond `EVENT_FREE` that all streams of the process buffer together."""

DONE = b"[DONE]"
"""The data with which OpenAI's streams end."""

_make = partial(tuple.__new__, SseEvent)  # SseEvent(...) itself costs half as much again.


class LargeEventBudget:
    """Budget of memory for events larger than `EVENT_FREE`, shared by parsers."""

    __slots__ = ("left",)

    def __init__(self, size: int = LARGE_EVENTS_BUDGET) -> None:
        self.left = size


_BUDGET = LargeEventBudget()


class SseParser(msgspec.Struct, eq=False, kw_only=True):
    """Parser of the body of one answer into events.

    The events do not depend on how the body was sliced. Comments, and events
    without data, are dropped. A byte order mark is removed before. An event larger
    than `limit` is an OverlongAnswerError, raised once the events before it have
    been returned. A large event for which `budget` has too little left is
    UPSTREAM_BAD_RESPONSE.
    """

    limit: int = EVENT_MAX
    budget: LargeEventBudget = _BUDGET
    _reserved: int = 0
    _pending: list[bytes] = []
    """The beginning of an event, with LF line ends."""
    _pending_size: int = 0
    _after_cr: bool = False
    _too_large: bool = False
    _lacks_memory: bool = False

    @property
    def is_between_events(self) -> bool:
        """Whether an event, and nothing else, was ended by the last data."""
        return not (self._pending or self._after_cr or self._too_large)

    def split(self, data: bytes) -> list[bytes]:
        """Split `data`. Returns the blocks of lines that it completes, for `event_of`."""
        if self._too_large:
            self._check()
        if b"\r" in data or self._after_cr:
            data = self._with_lf(data)
        if not data:
            return []
        pending = self._pending
        if b"\n\n" not in data and not (
            pending and data.startswith(b"\n") and pending[-1].endswith(b"\n")
        ):
            return self._wait(data)
        if pending:
            pending.append(data)
            data = self._take_pending()
        blocks = data.split(b"\n\n")
        if len(data) > self.limit:
            self._cut_too_large(blocks)
        rest = blocks.pop()
        if rest:
            self._wait(rest)  # It fits: nothing is raised that would hide the events.
        if not blocks:
            self._check()
        return blocks

    def rest(self) -> list[bytes]:
        """End the body. Returns the block without its blank line, if its data is complete."""
        self._check()
        block = self._take_pending()
        return [block] if is_complete(block) else []

    def _check(self) -> None:
        if self._lacks_memory:
            raise unreadable("The provider sent an event for which there is no memory.")
        if self._too_large:
            raise OverlongAnswerError

    def _wait(self, data: bytes) -> list[bytes]:
        self._pending.append(data)
        self._pending_size += len(data)
        self._too_large = self._pending_size - data.endswith(b"\n") > self.limit
        if self._pending_size > EVENT_FREE:
            self._reserve(self._pending_size - EVENT_FREE)
        if self._too_large:
            self._take_pending()
        self._check()
        return []

    def _reserve(self, size: int) -> None:
        """Hold `size` bytes of the budget, instead of what is held."""
        more = size - self._reserved
        if more > self.budget.left:
            self._too_large = self._lacks_memory = True
        else:
            self.budget.left -= more
            self._reserved = size

    def __del__(self) -> None:
        """Return the share of the budget: a stream may be abandoned in the middle of an event."""
        self.budget.left += self._reserved

    def _take_pending(self) -> bytes:
        if self._reserved:
            self._reserve(0)
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        return data

    def _cut_too_large(self, blocks: list[bytes]) -> None:
        """Drop the first block that is too large, if there is one, and all blocks after it."""
        for number, block in enumerate(blocks):
            if len(block) - block.endswith(b"\n") > self.limit:
                self._too_large = True
                blocks[number:] = [b""]
                return

    def _with_lf(self, data: bytes) -> bytes:
        """Normalize line ends in `data` to LF, also if a CRLF is split between pieces."""
        if self._after_cr:
            data = data.removeprefix(b"\n")  # Its CR has ended the line already.
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def event_of(block: bytes) -> SseEvent | None:
    """Parse the event in a block of lines, by the rules of the standard. None without data."""
    # Nearly all events are one line `data: …`: half a microsecond each.
    if block[:6] == b"data: " and b"\n" not in block:
        return _make(("", block[6:])) if len(block) > 6 else None
    name = ""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"error":
            name = "error"
            data.append(value)
        elif field == b'{"error"':
            name = "error"
            data.append(line)
    joined = b"\n".join(data)
    return SseEvent(name, joined) if joined else None


def is_complete(block: bytes) -> bool:
    """Whether the data of the event in a block of lines is complete, if there is one."""
    event = event_of(block.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    return event is not None and _complete(event.data)


def _complete(data: bytes) -> bool:
    """Whether the data is complete: truncated JSON is not valid JSON."""
    if data.strip() == DONE:
        return True
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except NOT_JSON:
        return False
    return True
