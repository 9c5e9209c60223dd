"""Reader of the call log: lists and sums over all segments of its store.

A read comes after the rows of calls that have ended in this process, if they are written in time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from services.accounts.proto_fields import END_OF_TIME_MS
from services.errors import Failure
from services.storage.base import Transaction
from services.storage.call_labels import LabelFilter, read_labels
from services.storage.call_rows import (
    CallPosition,
    CallRow,
    CallSelection,
    call_by_position,
    calls_after,
    list_calls,
)
from services.storage.call_store import CallSegment, CallStore
from services.storage.call_sums import CallSums, Group, SumsQuery, matching_days, read_groups

WAIT_MAX_S = 1.0
"""Longest wait of a read for the rows of this process."""

EXPORT_ROWS = 500
"""Rows that an export reads at a time."""

_CALL_ID = re.compile(r"call-([0-9a-f]{11})[0-9a-f]{20}")


class CallLogReader:
    """Reads the log. Its methods raise Failure STORAGE_UNAVAILABLE."""

    def __init__(self, store: CallStore, flush: Callable[[], Awaitable[None]]) -> None:
        """`flush` waits until the calls of this process have their rows."""
        self._store = store
        self._flush = flush

    async def page(
        self, selection: CallSelection, limit: int, before: CallPosition | None
    ) -> Sequence[CallRow]:
        """Return at most `limit` calls, newest first, that are older than the position."""
        found: list[CallRow] = []
        for segment in await self._segments(selection):
            left = limit - len(found)
            narrowed = await _narrowed(segment, selection)
            if narrowed is not None:
                found += await segment.read(list_calls, narrowed, left, before)
            if len(found) == limit:
                break
        return found

    async def call(self, call_id: str, account: str) -> CallRow | None:
        """Return a call of the account, of any account if the name is empty; None if not found."""
        match = _CALL_ID.fullmatch(call_id)
        if match is None:
            return None
        at_ms = int(match[1], 16)
        times = CallSelection(start_ms=at_ms, end_ms=at_ms + 1)
        for segment in await self._segments(times):
            if found := await segment.read(call_by_position, at_ms, call_id, account):
                return found
        return None

    async def call_of_answer(self, answer_id: str, account: str) -> CallRow | None:
        """Return the latest call whose answer or request has an ID."""
        everything = CallSelection(start_ms=0, end_ms=END_OF_TIME_MS, account=account)
        for name in ("completion_id", "request_id"):
            selection = msgspec.structs.replace(everything, **{name: answer_id})
            if found := await self.page(selection, 1, None):
                return found[0]
        return None

    async def sums(self, query: SumsQuery) -> Mapping[Group, CallSums]:
        """Return the sums of groups, by their time and names."""
        return await self._sums(query, partial(read_groups, query))

    async def sums_of_labels(
        self, query: SumsQuery, labels: LabelFilter
    ) -> Mapping[Group, CallSums]:
        """Return the sums of groups of calls that have such labels."""
        return await self._sums(query, partial(read_labels, query, labels))

    async def _sums(
        self, query: SumsQuery, read: Callable[[], Transaction[Mapping[Group, CallSums]]]
    ) -> Mapping[Group, CallSums]:
        found: dict[Group, CallSums] = {}
        for segment in await self._segments(query.selection):
            for group, sums in (await segment.read(read)).items():
                if group in found:
                    found[group].add(sums)
                else:
                    found[group] = sums
        return dict(sorted(found.items()))

    async def export(self, selection: CallSelection) -> AsyncGenerator[Sequence[CallRow], None]:
        """Yield calls, oldest first, in parts."""
        for segment in reversed(await self._segments(selection)):
            after: CallPosition | None = None
            while rows := await segment.read(calls_after, selection, EXPORT_ROWS, after):
                yield rows
                after = rows[-1].at_ms, rows[-1].id

    async def _segments(self, selection: CallSelection) -> Sequence[CallSegment]:
        with suppress(TimeoutError, Failure):
            async with asyncio.timeout(WAIT_MAX_S):
                await self._flush()
        return await self._store.segments(selection.start_ms, selection.end_ms)


async def _narrowed(segment: CallSegment, selection: CallSelection) -> CallSelection | None:
    """Return the selection within the days that have such calls; None: no day has.

    Rare names would otherwise be looked for in all rows.
    """
    if not (selection.key_id or selection.model or selection.channel or selection.call_end):
        return selection
    days = await segment.read(matching_days, selection)
    if days is None:
        return None
    start_ms, end_ms = max(selection.start_ms, days[0]), min(selection.end_ms, days[1])
    return msgspec.structs.replace(selection, start_ms=start_ms, end_ms=end_ms)
